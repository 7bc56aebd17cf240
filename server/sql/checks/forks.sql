-- Every seq of the moved loads that carries more than one id is listed, with all its further ids.
select raw.device_id, raw.epoch, raw.seq
from scout_bronze.transactions_raw as raw
where raw.epoch is not null
    and not exists (select from scout_bronze.loads where loads.load_id = raw.load_id)
group by raw.device_id, raw.epoch, raw.seq
having count(*) > 1
    and count(*) - 1 > (
        select count(*)
        from scout_bronze.forks
        where forks.device_id = raw.device_id and forks.epoch = raw.epoch and forks.seq = raw.seq
    )

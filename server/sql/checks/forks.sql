-- Every seq in production that carries more than one id is listed, with all its further ids.
select device_id, epoch, seq
from scout.bronze_transactions_raw as production
where record_id is not null
group by device_id, epoch, seq
having count(distinct record_id) - 1 > (
    select count(*)
    from scout_bronze.forks
    where forks.device_id = production.device_id and forks.epoch = production.epoch and forks.seq = production.seq
)

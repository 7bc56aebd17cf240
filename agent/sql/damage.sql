-- Queries of agent/damage.py and agent/salvage.py.

-- steps -- how many steps made this file
select count(*) from _sqlite_migrations;

-- contradictions -- epochs whose counts don't add up, batches of no epoch, batches of another device
select 'epoch ' || epoch
from epochs
left join (
    select epoch_number as number, sum(last_seq - first_seq + 1) as batched from batches group by epoch_number
) using (number)
left join (select epoch, sum(last_seq - first_seq + 1) as missing from lost group by epoch) using (epoch)
where head < sealed_to or sealed_to <> forgotten + coalesce(batched, 0) + coalesce(missing, 0)
union all
select 'batch ' || key from batches where epoch_number not in (select number from epochs)
union all
select 'batch ' || key from batches, device where key not like '%/' || coalesce(device_id, '') || '/%';

-- expected -- how many records each epoch must hold, and how many it lost
select number, epoch, head,
    head - sealed_to + coalesce(
        (select sum(last_seq - first_seq + 1) from batches where epoch_number = epochs.number), 0
    ) as expected,
    coalesce((select sum(last_seq - first_seq + 1) from lost where lost.epoch = epochs.epoch), 0) as lost
from epochs
order by number;

-- sealed -- every batch
select epoch_number, first_seq, last_seq, key, sha256 from batches order by number;

-- owner -- whose spool this is, and whether a batch says that it is ours
select device_id, exists (select 1 from batches where key like '%/' || :device_id || '/%') from device;

-- adopted -- the number of a salvaged epoch, where it is here already
select number from epochs where epoch = :epoch;

-- adopt_epoch -- an epoch from a damaged file: all sealed, closed to intake
insert into epochs (number, epoch, boot, opened_at, head, sealed_to, forgotten)
select min(1, coalesce(min(number), 1)) - 1, :epoch, :boot, :opened_at, 0, 0, 0 from epochs;

-- raise_adopted -- its head, and what adds up to it
update epochs
set head = max(head, :head), sealed_to = max(sealed_to, :head)
where number = :number and number < 1;

-- count_adopted -- whatever is neither in a batch nor lost was settled and forgotten before
update epochs
set forgotten = sealed_to - (
    select coalesce(sum(last_seq - first_seq + 1), 0) from (
        select first_seq, last_seq from batches where epoch_number = :number
        union all
        select first_seq, last_seq from lost where lost.epoch = epochs.epoch
    )
)
where number = :number and number < 1;

-- covered -- runs of an epoch that are here, or known to be lost
select first_seq, last_seq from batches where epoch_number = :number
union all
select first_seq, last_seq from lost where epoch = :epoch
order by 1, 2;

-- take_record -- one record from a damaged file
insert or ignore into records (place, captured_at, line, checksum) values (?, ?, ?, ?);

-- take_batch -- one batch as it was
insert into batches (
    epoch_number, first_seq, last_seq, key, sha256, bytes, sealed_at, state, resend, refusals, refusal,
    set_aside_mono_ms, set_aside_boot, accepted_at, accepted_by, settled_at, refused_by, set_aside_at, exported_at
)
values (
    :epoch_number, :first_seq, :last_seq, :key, :sha256, :bytes, :sealed_at, :state, :resend, :refusals, :refusal,
    :set_aside_mono_ms, :set_aside_boot, :accepted_at, :accepted_by, :settled_at, :refused_by, :set_aside_at,
    :exported_at
);

-- note_lost -- a run that could not be read
insert into lost (epoch, first_seq, last_seq) values (:epoch, :first, :last);

-- salvage -- what became of a folder
select folder, finished_at, rows_salvaged, rows_lost from salvages where folder = :folder;

-- salvages -- what became of all of them
select folder, finished_at, rows_salvaged, rows_lost from salvages;

-- begin_salvage -- its notes are carried over
insert into salvages (folder) values (:folder) on conflict do nothing;

-- finish_salvage -- all that could be read is here
update salvages
set finished_at = :now, rows_salvaged = :rows_salvaged, rows_lost = :rows_lost
where folder = :folder;

-- carry_row -- one row of a small table; its names, all from our own schema, are filled in
insert or ignore into {table} ({columns}) values ({values});

-- carry_generation -- the life of the server's database that the damaged spool knew
update device set generation = :generation where generation is null;

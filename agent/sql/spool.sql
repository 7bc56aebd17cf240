-- Queries of agent/spool.py, in the order of a record's life.

-- claim_device -- the first agent to open a spool gives it its device
insert into device (only_row, device_id) values (1, :device_id) on conflict do nothing;

-- owner -- whose spool this is
select device_id from device;

-- newest_epoch -- the epoch begun last, with its counter
select number, epoch, boot, head from epochs where number > 0 order by number desc limit 1;

-- begin_epoch -- a new epoch for this boot; salvaged ones are numbered below 1
insert into epochs (number, epoch, boot, opened_at)
select max(0, coalesce(max(number), 0)) + 1, :epoch, :boot, :now from epochs;

-- insert_record -- one record
insert into records (place, captured_at, line, checksum) values (?, ?, ?, ?);

-- raise_head -- count the records just stored
update epochs
set head = head + :rows,
    unsealed_bytes = unsealed_bytes + :bytes,
    unsealed_since_mono_ms = coalesce(unsealed_since_mono_ms, :mono_ms)
where number = :number;

-- note_taken -- how much of a file is in the spool
insert into taken_files (name, bytes_taken) values (:name, :bytes_taken)
on conflict (name) do update set bytes_taken = excluded.bytes_taken;

-- bytes_taken -- how much of a file is in the spool
select bytes_taken from taken_files where name = :name;

-- taken_files -- files whose notes are kept
select name from taken_files;

-- release_file -- the file is gone
delete from taken_files where name = ?;

-- note_post -- what came under an Idempotency-Key
insert into posts (key, sha256, noted_at) values (:key, :sha256, :noted_at);

-- posts -- what came under which Idempotency-Key before
select key, sha256 from posts order by number;

-- forget_posts -- the oldest keys: those beyond a number, and those noted before a moment
delete from posts
where number <= (select max(number) from posts) - :kept_max or noted_at < :before;
-- note_tail_mark -- how far a content is in the spool, and in which file it lies
insert into tail_marks (number, inode, name, bytes_taken, lines_taken, skips_line, head, near, copy_of)
values (:number, :inode, :name, :bytes_taken, :lines_taken, :skips_line, :head, :near, :copy_of)
on conflict (number) do update
set inode = excluded.inode,
    bytes_taken = excluded.bytes_taken,
    lines_taken = excluded.lines_taken,
    skips_line = excluded.skips_line,
    head = excluded.head,
    near = excluded.near,
    copy_of = excluded.copy_of;

-- tail_marks -- every mark, as agent.intake.TailMark has it
select number, inode, name, bytes_taken, lines_taken, skips_line, head, near, copy_of
from tail_marks
order by number;

-- drop_tail_mark -- it is needed no more
delete from tail_marks where number = :number;

-- unsealed -- the oldest epoch with records that no batch covers
select number, epoch, boot, head, sealed_to, unsealed_bytes, unsealed_since_mono_ms
from epochs
where head > sealed_to
order by number
limit 1;

-- run_end -- the last place that fits into the next batch; at least its first record does
select max(place) from (
    select place, sum(length(cast(line as blob)) + 1) over (order by place) as running, :first as first
    from (select place, line from records where place >= :first and place < :past order by place limit :rows_max)
)
where running <= :bytes_max or place = first;

-- jsonl -- the lines of a run, joined; the scan of the primary key gives their order
select cast(group_concat(line, char(10)) as blob)
from (select line from records where place between :first and :last order by place);

-- proof -- how many records a run has, and how many don't match their checksum
select count(*), sum(checksum is not null and checksum <> line_checksum(:epoch, cast(line as blob)))
from records
where place between :first and :last;

-- insert_batch -- a sealed run
insert into batches (epoch_number, first_seq, last_seq, key, sha256, bytes, sealed_at)
values (:epoch_number, :first_seq, :last_seq, :key, :sha256, :bytes, :now);

-- raise_sealed -- what is sealed now; the rest, if any, is as young as this moment
update epochs
set sealed_to = :last_seq,
    unsealed_bytes = max(0, unsealed_bytes - :bytes),
    unsealed_since_mono_ms = case when head > :last_seq then :mono_ms end
where number = :number and sealed_to = :first_seq - 1;

-- next_waiting -- the oldest batch to send
select number, key, sha256, bytes, resend, refused_by, exported_at is not null as exported
from batches
where state = 'waiting' and number > :after
order by number
limit 1;

-- newest_waiting -- the youngest batch to send
select coalesce(max(number), 0) from batches where state = 'waiting';

-- epoch_number -- the number of an epoch
select number from epochs where epoch = :epoch;

-- accept -- the bytes left this machine
update batches
set state = 'accepted', accepted_at = :now, accepted_by = :by, refusals = 0, refusal = null, refused_by = null
where number = :number and state in ('waiting', 'set_aside');

-- count_refusal -- whichever path refuses: two that take turns must not keep a batch in the way for ever
update batches set refusals = refusals + 1, refusal = :reason, refused_by = :by where number = :number;

-- set_aside -- refused often enough; the next batch goes on
update batches
set state = 'set_aside', set_aside_at = :now, set_aside_mono_ms = :mono_ms, set_aside_boot = :boot
where number = :number and state = 'waiting' and refusals >= :refusals_max;

-- set_aside_due -- whether a batch was set aside a day or a boot ago
select exists (
    select 1 from batches
    where state = 'set_aside' and (set_aside_boot <> :boot or set_aside_mono_ms <= :before_mono_ms)
);

-- retry_set_aside -- one more try each; refusals stay counted, so one more sets aside again
update batches
set state = 'waiting'
where state = 'set_aside' and (set_aside_boot <> :boot or set_aside_mono_ms <= :before_mono_ms);

-- list_set_aside -- what was set aside, the oldest first
select number, key, last_seq - first_seq + 1 as rows, refusals, refusal, refused_by, set_aside_at
from batches
where state = 'set_aside'
order by number;

-- replay_set_aside -- a technician wants it tried again; refusals stay counted
update batches set state = 'waiting' where number = :number and state = 'set_aside';

-- awaited -- batches without a receipt that were accepted, then those that only lie on a stick: however many
-- those are, they must not keep the others from being asked about
select number, key, sha256, bytes, resend, refused_by, exported from (
    select number, key, sha256, bytes, resend, refused_by, exported_at is not null as exported, 0 as place
    from batches
    where state = 'accepted'
    union all
    select number, key, sha256, bytes, resend, refused_by, 1, 1
    from batches
    where state in ('waiting', 'set_aside') and exported_at is not null
)
order by place, number
limit :limit;

-- settle -- the server's ledger covers it
update batches set state = 'settled', settled_at = :now where number = :number and state <> 'settled';

-- send_again -- the server asked for a copy
update batches set state = 'waiting', resend = :resend where number = :number and state = 'accepted';

-- generation -- the life of the server's database heard last
select generation from device where generation is not null;

-- note_generation -- a life of the server's database
update device set generation = :generation;

-- await_again -- after a restore, every batch still kept is asked for again
update batches set state = 'accepted', settled_at = null where state = 'settled';

-- kept -- batches to export, the oldest first
select number, key, sha256, bytes, resend, refused_by, exported_at is not null as exported
from batches
where state <> 'settled' or :settled
order by number;

-- keeps -- whether a batch is still here; numbers of forgotten ones may be given again, so the key counts too
select exists (select 1 from batches where number = :number and key = :key);

-- note_exported -- it lies on a stick
update batches set exported_at = :now where number = :number and key = :key;

-- known_boot -- what was measured of a boot so far
select boot, zero_at, error_ms from boots where boot = :boot;

-- note_boot -- a better measurement of a boot, which the server has yet to hear
insert into boots (boot, zero_at, error_ms) values (:boot, :zero_at, :error_ms)
on conflict (boot) do update set zero_at = excluded.zero_at, error_ms = excluded.error_ms, heard = 0;

-- forget_boots -- boots of which nothing is left here
delete from boots where boot <> :boot and not exists (select 1 from epochs where epochs.boot = boots.boot);

-- boot_states -- boots to report: first those never heard of, then those with records that are not settled
select boot, zero_at, error_ms
from boots
where not heard
   or boot in (
       select boot from epochs
       where head > sealed_to or number in (select epoch_number from batches where state <> 'settled')
   )
order by heard, zero_at
limit :limit;

-- any_unheard -- whether a measurement waits to be heard
select exists (select 1 from boots where not heard);

-- note_heard -- the server answered a report with this measurement
update boots set heard = 1 where boot = :boot and zero_at = :zero_at and error_ms = :error_ms;

-- tell_boots_again -- a restored server may have lost what it heard
update boots set heard = 0;

-- forgettable -- the oldest batches settled long enough ago
select number, epoch_number, first_seq, last_seq
from batches
where state = 'settled' and settled_at < :before
order by settled_at
limit :limit;

-- forget_records -- a settled run leaves
delete from records where place between :first and :last;

-- forget_batch -- and its batch
delete from batches where number = :number;

-- count_forgotten -- and is counted
update epochs set forgotten = forgotten + :rows where number = :number;

-- forget_epochs -- epochs of earlier boots that hold nothing any more, and what they lost was heard long enough ago
delete from epochs
where boot <> :boot
  and head = sealed_to
  and not exists (
      select 1 from lost
      where lost.epoch = epochs.epoch and (heard_at is null or heard_at >= :before)
  )
  and number < (select max(number) from epochs)
  and not exists (select 1 from batches where batches.epoch_number = epochs.number);

-- forget_lost -- and what was lost of them
delete from lost where epoch not in (select epoch from epochs);

-- epoch_heads -- every epoch and its highest seq
select number, epoch, head from epochs order by number;

-- unsettled_runs -- runs that this device still answers for, in rising order
select epoch_number, first_seq, last_seq from batches where state <> 'settled'
union all
select number, sealed_to + 1, head from epochs where head > sealed_to
order by 1, 2;

-- backlog -- what is not sent, and what is not receipted; asked often, so it never looks at what is settled
select
    coalesce((select sum(head - sealed_to) from epochs), 0)
    + coalesce(sum(last_seq - first_seq + 1) filter (where state <> 'accepted'), 0) as unsent_rows,
    coalesce(sum(last_seq - first_seq + 1) filter (where state = 'accepted'), 0) as accepted_rows
from batches
where state <> 'settled';

-- lost_runs -- runs that a damaged file no longer gave, in rising order
select epochs.number, first_seq, last_seq from lost join epochs on epochs.epoch = lost.epoch order by 1, 2;

-- note_losses_heard -- the server answered a report that named them
update lost set heard_at = :now where heard_at is null and epoch = :epoch;

-- state -- what the spool holds
select
    (select device_id from device) as device_id,
    (select epoch from epochs where number > 0 order by number desc limit 1) as epoch,
    coalesce((select head from epochs where number > 0 order by number desc limit 1), 0) as head,
    coalesce((select sum(head - sealed_to) from epochs), 0) as unsealed_rows,
    coalesce(sum(last_seq - first_seq + 1) filter (where state = 'waiting'), 0) as waiting_rows,
    coalesce(sum(last_seq - first_seq + 1) filter (where state = 'accepted'), 0) as accepted_rows,
    coalesce(sum(last_seq - first_seq + 1) filter (where state = 'set_aside'), 0) as set_aside_rows,
    coalesce(sum(last_seq - first_seq + 1) filter (where state = 'settled'), 0) as settled_rows,
    coalesce((select sum(last_seq - first_seq + 1) from lost), 0) as lost_rows,
    count(*) filter (where state = 'waiting') as batches_waiting,
    (select captured_at from records where place >= coalesce(
        (select min(place) from (
            select min(epoch_number * 1000000000000 + first_seq) as place from batches where state <> 'settled'
            union all
            select min(number * 1000000000000 + sealed_to + 1) from epochs where head > sealed_to)),
        9223372036854775807)
     order by place limit 1) as oldest_unsettled_at,
    max(accepted_at) as last_accepted_at,
    (select accepted_by from batches where accepted_at is not null order by accepted_at desc limit 1)
        as last_accepted_by,
    max(settled_at) as last_settled_at
from batches;

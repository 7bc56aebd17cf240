-- What operators bring and decide: when an imported file was written, and what became of what is held.
alter table scout_bronze.files add column captured_at timestamptz;
comment on column scout_bronze.files.captured_at is
    'When an older device''s file was written last: the time of those of its lines that don''t say one.';

alter table scout_bronze.quarantine
    add column place integer,
    add column outcome text check (outcome in ('replayed', 'discarded')),
    add column ended_at timestamptz,
    add column why text,
    add column edited bytea,
    add column replayed_rows integer,
    add constraint quarantine_ended check ((outcome is null) = (ended_at is null));
create index quarantine_open on scout_bronze.quarantine (quarantine_id) where outcome is null;
create index quarantine_file on scout_bronze.quarantine (file_id);
comment on column scout_bronze.quarantine.place is
    'Which transaction of its body a line of others is, from 1: elements of an array may share a line.';
comment on column scout_bronze.quarantine.outcome is
    'What an operator made of it: `replayed` into bronze, as it was or `edited`; or `discarded`, with `why`.';
comment on column scout_bronze.quarantine.replayed_rows is
    'How many rows of bronze came of it: none where bronze had them already.';
comment on column scout_bronze.quarantine.edited is 'What was taken in its stead; `raw` stays as it came.';

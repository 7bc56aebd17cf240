-- When this database was backed up last: a backup that fails each night must not go unnoticed.
alter table scout_edge.settings add column backed_up_at timestamptz;
comment on column scout_edge.settings.backed_up_at is
    'When the newest backup by `scout-server backup` was complete, by this database''s clock; null before the first. In a
     restored database that is the one before the backup that was restored.';

-- How far the tail source has read one content, and how to know it again: content may change its file (renamed,
-- copied and truncated), and a file its content. Committed with the records that were read.
create table tail_marks (
    number integer primary key,   -- rises: a lower one was met earlier
    inode integer not null,       -- of the file that holds it, or did
    name blob not null,           -- under which it was first met
    bytes_taken integer not null, -- so many from its beginning are in the spool
    lines_taken integer not null,
    skips_line integer not null,  -- whether bytes_taken lies within a line refused for its length
    head blob not null,           -- hash of the first of these bytes
    near blob not null,           -- hash of the last of these bytes
    copy_of integer               -- set while this file is only known to begin like another, nothing of it taken
) strict;

-- What a technician sees of a batch that was refused, and by which path: the next try takes the other one.
alter table batches add column refused_by text;
alter table batches add column set_aside_at text;

-- A device can't fill the list of heads: what it reports beyond so many epochs raises an alarm instead.
alter table scout_edge.alarms drop constraint alarms_kind_check;
alter table scout_edge.alarms
    add constraint alarms_kind_check check (kind in ('head_jumped', 'too_many_epochs'));

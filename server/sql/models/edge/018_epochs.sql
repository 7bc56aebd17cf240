-- Takes in what a device reports of one epoch; false when its head is not believed.
-- May be relied on: a head never falls. One that is more than 1,000,000 above the head known before is believed once
-- rows prove it, that is once bronze holds a seq not further below: a device that was offline for years is soon
-- believed, one that lies only ever has an alarm. Until then the head rises to what is proven, so that a lie makes no
-- gap, and everything else of the report counts. `lost` is null where the device says nothing of losses.
create or replace function scout_edge.note_epoch(
    device text, epoch text, head bigint, unsettled int8multirange, lost int8multirange
)
returns boolean
language plpgsql
set search_path = ''
as $$
declare
    rise_max constant bigint := 1000000;
    believed bigint := coalesce(
        (select heads.head from scout_edge.heads where heads.device_id = $1 and heads.epoch = $2), 0
    );
begin
    if head > believed + rise_max then
        believed := greatest(
            believed,
            (select max(raw.seq) from scout_bronze.transactions_raw as raw where raw.device_id = $1 and raw.epoch = $2),
            -- Or held it once, and production has it since.
            (
                select upper(retired.seqs) - 1
                from scout_bronze.retired
                where retired.device_id = $1 and retired.epoch = $2
            )
        );
    end if;
    if head <= believed + rise_max then
        believed := greatest(believed, head);
    end if;
    insert into scout_edge.heads as old (device_id, epoch, head, unsettled, lost, first_heard_at, last_heard_at)
    values ($1, $2, believed, $4, coalesce($5, '{}'), now(), now())
    on conflict on constraint heads_pkey do update
        set head = greatest(old.head, excluded.head),
            unsettled = excluded.unsettled,
            -- An older agent says nothing of losses, and takes none back.
            lost = coalesce($5, old.lost),
            last_heard_at = excluded.last_heard_at;
    return head <= believed;
end
$$;
revoke all on function scout_edge.note_epoch(text, text, bigint, int8multirange, int8multirange) from public;

-- Opens or closes a device's alarm of one kind; `detail` null says that there is no reason for it any more.
create or replace function scout_edge.note_alarm(device text, kind text, detail text)
returns void
language plpgsql
set search_path = ''
as $$
begin
    if detail is null then
        update scout_edge.alarms
        set resolved_at = now()
        where alarms.device_id = $1 and alarms.kind = $2 and alarms.resolved_at is null;
    else
        insert into scout_edge.alarms as old (device_id, kind, detail)
        values ($1, $2, $3)
        on conflict on constraint alarms_pkey do update
            set detail = excluded.detail,
                first_seen_at = case when old.resolved_at is null then old.first_seen_at else now() end,
                last_seen_at = now(),
                resolved_at = null;
    end if;
end
$$;
revoke all on function scout_edge.note_alarm(text, text, text) from public;

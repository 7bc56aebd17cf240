-- known_devices -- which of these devices exist
select device_id from scout_edge.devices where device_id = any (%(device_id)s)

-- owners -- the device that reported each of these epochs as its own
select epoch, device_id from scout_edge.heads where epoch = any (%(epoch)s)

-- outcomes -- what became of objects of the bucket: the newest version of each
select distinct on (files.key)
    files.key,
    files.state,
    files.reason,
    coalesce(files.accepted, 0),
    coalesce(files.duplicates, 0),
    coalesce(files.rejected, 0)
from scout_bronze.files
where files.bucket = %(bucket)s and files.key = any (%(key)s)
order by files.key, files.file_id desc

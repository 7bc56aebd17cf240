-- Each earlier version is earlier than the latest one of its sale, which there is; and only a void sale has voided_at.
select former.raw_id
from scout.silver_transaction_versions as former
left join scout.silver_transactions as sale using (source_id, transaction_key)
where sale.raw_id is null
    or (
        coalesce(former.revision, '-infinity'), coalesce(former.version_at, '-infinity'), former.version, former.raw_id
    ) >= (coalesce(sale.revision, '-infinity'), coalesce(sale.version_at, '-infinity'), sale.version, sale.raw_id)
union all
select raw_id
from (
    select raw_id, status, version_at, voided_at from scout.silver_transactions
    union all
    select raw_id, status, version_at, voided_at from scout.silver_transaction_versions
) as version
where voided_at is distinct from case when status = 'void' then version_at end

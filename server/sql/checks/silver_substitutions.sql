-- Every substitution is what the latest version of a sale says, and none that names two different things has no
-- answer to whether it occurred, unless the till's own could not be read.
select source_id, transaction_key
from scout.silver_substitutions as substitution
left join scout.silver_transactions as sale using (source_id, transaction_key)
where sale.raw_id is distinct from substitution.raw_id
    or (
        substitution.occurred is null
        and (substitution.from_sku <> substitution.to_sku or substitution.from_brand <> substitution.to_brand)
        and not exists (
            select
            from scout.silver_rejections as rejection
            where rejection.raw_id = substitution.raw_id and rejection.field = 'occurred'
        )
    )

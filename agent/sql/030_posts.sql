-- Idempotency-Keys of posts to the local HTTP source, with the hash of what came under them. A row is written in
-- the transaction that stores the post's records. `number` gives their order: the oldest are forgotten. No index on
-- the key, which would wear the card as much as the records do: the source holds them in memory.
create table posts (
    number integer primary key,
    key text not null,
    sha256 text not null,
    noted_at text -- by a clock that was synchronised, else null
) strict;

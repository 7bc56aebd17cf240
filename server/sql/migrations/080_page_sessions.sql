-- Who is signed in to the operators' page.
create table scout_edge.page_sessions (
    session_mac bytea primary key check (octet_length(session_mac) = 32),
    role text not null,
    subject text not null,
    jti text,
    token_issued_at bigint not null,
    began_at timestamptz not null,
    expires_at timestamptz not null
);
create index page_sessions_expires on scout_edge.page_sessions (expires_at);
comment on table scout_edge.page_sessions is
    'One row per browser that is signed in: whose token it showed, so that a revoked token ends it. Expired rows are
     removed at the next sign-in.';
comment on column scout_edge.page_sessions.session_mac is
    'HMAC-SHA256 of the cookie under the JWT secret: no cookie can be made from it, and a changed secret ends all.';

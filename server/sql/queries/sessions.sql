-- begin -- keeps whose token was shown, and forgets who was signed in before
with expired as (
    delete from scout_edge.page_sessions where expires_at <= %(now)s
)
insert into scout_edge.page_sessions (session_mac, role, subject, jti, token_issued_at, began_at, expires_at)
values (%(session_mac)s, %(role)s, %(subject)s, %(jti)s, %(token_issued_at)s, %(now)s, %(expires_at)s)

-- find -- who is signed in, if the token still counts
select subject, expires_at
from scout_edge.page_sessions
where session_mac = %(session_mac)s
    and expires_at > %(now)s
    and scout_edge.token_refusal(role, subject, token_issued_at, jti) is null

-- end -- signs out
delete from scout_edge.page_sessions where session_mac = %(session_mac)s

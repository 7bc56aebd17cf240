-- The roles of a Supabase project, and who owns it: no superuser, with exactly the rights that are documented.
create role anon;
create role authenticated;
create role service_role bypassrls;
create role supabase_storage_admin noinherit;
create role authenticator noinherit;
grant anon, authenticated, service_role to authenticator;
create role project_owner login createrole password 'of the tests';
-- On a hosted project an extension lets the project's owner make policies; elsewhere this does.
grant supabase_storage_admin to project_owner;

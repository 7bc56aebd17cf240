-- Rows typed by earlier models are typed again after an upgrade. Raise the number whenever a change of the models of
-- silver makes what they wrote before wrong.
do $$
declare
    version_now constant integer := 1;
begin
    if (select version from scout.typing) < version_now then
        perform scout.type_again();
        update scout.typing set version = version_now;
    end if;
end
$$;

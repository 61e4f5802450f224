-- Why the role that is connected is not a least-privilege one: one row for each thing that it may do beyond its tables.
SELECT 'is a superuser' FROM pg_catalog.pg_roles r WHERE r.rolname = current_user AND r.rolsuper
UNION ALL
SELECT 'may make roles' FROM pg_catalog.pg_roles r WHERE r.rolname = current_user AND r.rolcreaterole
UNION ALL
SELECT 'may make databases' FROM pg_catalog.pg_roles r WHERE r.rolname = current_user AND r.rolcreatedb
UNION ALL
SELECT 'may replicate' FROM pg_catalog.pg_roles r WHERE r.rolname = current_user AND r.rolreplication
UNION ALL
SELECT 'bypasses row security' FROM pg_catalog.pg_roles r WHERE r.rolname = current_user AND r.rolbypassrls
UNION ALL
SELECT 'belongs to ' || r.rolname
FROM pg_catalog.pg_roles r
WHERE pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER') AND r.rolname <> current_user
  AND (r.rolsuper OR r.rolcreaterole OR r.rolbypassrls OR r.rolreplication OR r.rolname LIKE 'pg\_%')

-- Functions and operators that a plain statement could call in the place of the database's own: they bear the name of one
-- that statements may use, take nothing but the database's own types, and are found by the search path. Parameters are
-- the names of such functions and of such operators. What an extension brought in is its maker's, not a user's.
WITH found AS (
    SELECT 'pg_catalog.pg_proc'::regclass AS kind, p.oid, p.proname AS name
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace <> 'pg_catalog'::regnamespace AND p.proname = ANY ($1::text[])
      AND pg_catalog.pg_function_is_visible(p.oid)
      AND NOT EXISTS (
          SELECT FROM pg_catalog.unnest(p.proargtypes) a JOIN pg_catalog.pg_type t ON t.oid = a
          WHERE t.typnamespace <> 'pg_catalog'::regnamespace
      )
    UNION ALL
    SELECT 'pg_catalog.pg_operator'::regclass, o.oid, o.oprname
    FROM pg_catalog.pg_operator o
    WHERE o.oprnamespace <> 'pg_catalog'::regnamespace AND o.oprname = ANY ($2::text[])
      AND pg_catalog.pg_operator_is_visible(o.oid)
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_type t
          WHERE t.oid IN (o.oprleft, o.oprright) AND t.typnamespace <> 'pg_catalog'::regnamespace
      )
)
SELECT f.name FROM found f
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d WHERE d.classid = f.kind AND d.objid = f.oid AND d.deptype = 'e'
)

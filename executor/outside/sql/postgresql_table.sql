-- What decides whether a statement on one table can be tried: parameters are the table's schema (null: as it is found
-- by the search path) and its name. One row, or none where there is no such table.
WITH found AS (
    SELECT c.oid, c.relname, n.nspname, c.relkind, c.relowner, c.relpersistence
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass(
        CASE WHEN $1::text IS NULL THEN '' ELSE pg_catalog.quote_ident($1) || '.' END || pg_catalog.quote_ident($2)
    )
), parts AS (
    SELECT 'pg_catalog.pg_class'::regclass AS kind, f.oid FROM found f
    UNION ALL SELECT 'pg_catalog.pg_attrdef'::regclass, d.oid FROM pg_catalog.pg_attrdef d, found f WHERE d.adrelid = f.oid
    UNION ALL SELECT 'pg_catalog.pg_constraint'::regclass, k.oid FROM pg_catalog.pg_constraint k, found f WHERE k.conrelid = f.oid
    UNION ALL SELECT 'pg_catalog.pg_class'::regclass, i.indexrelid FROM pg_catalog.pg_index i, found f WHERE i.indrelid = f.oid
    UNION ALL SELECT 'pg_catalog.pg_policy'::regclass, p.oid FROM pg_catalog.pg_policy p, found f WHERE p.polrelid = f.oid
)
SELECT pg_catalog.json_build_object(
    'table', f.nspname || '.' || f.relname,
    'system', f.nspname IN ('pg_catalog', 'information_schema') OR f.nspname LIKE 'pg\_toast%',
    'ordinary', f.relkind = 'r',
    'readable', pg_catalog.has_table_privilege(f.oid, 'SELECT'),
    'owner', pg_catalog.pg_has_role(f.relowner, 'MEMBER'),
    'inherits', EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE f.oid IN (i.inhrelid, i.inhparent)),
    'triggers', EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = f.oid AND NOT t.tgisinternal),
    'rules', EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = f.oid),
    'delete_cascades', EXISTS (
        SELECT FROM pg_catalog.pg_constraint k
        WHERE k.confrelid = f.oid AND k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd')
    ),
    'update_cascades', EXISTS (
        SELECT FROM pg_catalog.pg_constraint k
        WHERE k.confrelid = f.oid AND k.contype = 'f' AND k.confupdtype IN ('c', 'n', 'd')
    ),
    'own_code', EXISTS (
        SELECT FROM pg_catalog.pg_depend d JOIN parts p ON d.classid = p.kind AND d.objid = p.oid
        WHERE d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass)
    ),
    'own_types', EXISTS (
        SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND NOT (t.typtype = 'e' OR t.typnamespace = 'pg_catalog'::regnamespace)
    ),
    'columns', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'name', a.attname,
            'generated', a.attgenerated <> '',
            'default', CASE
                WHEN a.attidentity <> '' THEN 'identity'
                WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid)
            END
        ) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped
    ),
    'key', (
        SELECT pg_catalog.json_agg(a.attname)
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = f.oid AND i.indisprimary
    )
)::text
FROM found f

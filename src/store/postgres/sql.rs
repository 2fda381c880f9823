//! The statements, and what is named in them.

use std::fmt;

use tokio_postgres::types::Type;

use super::problem::Problem;

/// A statement, by its place in the list of them.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Create,
    Load,
    Update,
    SignIn,
    Touch,
    Delete,
    DeleteExpired,
    List,
    DeleteByOwner,
    DeleteAll,
}

pub(super) const OPERATIONS: usize = 10;

impl Operation {
    /// The types of its parameters.
    pub(super) fn types(self) -> Vec<Type> {
        let record = |more: &[Type]| [&TYPES, more].concat();
        match self {
            Self::Create => record(&[Type::TIMESTAMPTZ]),
            Self::Load => vec![Type::UUID, Type::TIMESTAMPTZ],
            Self::Update => record(&[Type::INT8, Type::TIMESTAMPTZ]),
            Self::SignIn => {
                let (number, time) = (Type::INT8, Type::TIMESTAMPTZ);
                record(&[number.clone(), time.clone(), time, number, Type::BOOL])
            }
            Self::Touch => vec![Type::UUID, Type::TIMESTAMPTZ, Type::TIMESTAMPTZ],
            Self::Delete => vec![Type::UUID],
            Self::DeleteExpired => {
                let (number, time) = (Type::INT8, Type::TIMESTAMPTZ);
                vec![time.clone(), number, time.clone(), time]
            }
            Self::List => vec![Type::TEXT, Type::TIMESTAMPTZ],
            Self::DeleteByOwner => vec![Type::TEXT, Type::UUID, Type::TIMESTAMPTZ],
            Self::DeleteAll => Vec::new(),
        }
    }
}

/// All but the id, in the table's order.
const COLUMNS: &str = "version, digest, previous_digest, previous_until, owner, created, \
                       authenticated, renewed, seen, expires, idle, absolute, data";
const VALUES: &str = "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14";
const TYPES: [Type; 14] = [
    Type::UUID,
    Type::INT8,
    Type::BYTEA,
    Type::BYTEA,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::INT8,
    Type::INT8,
    Type::BYTEA,
];

/// What the tables are called.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

impl Names {
    pub(super) fn check(&self) -> Result<(), Problem> {
        if !is_name(&self.table, 48) {
            return Err(Problem::Table(self.table.clone()));
        }
        match &self.schema {
            // The server keeps those to itself.
            Some(schema) if !is_name(schema, 63) || schema.starts_with("pg_") => {
                Err(Problem::Schema(schema.clone()))
            }
            _ => Ok(()),
        }
    }

    /// What comes before each name.
    fn prefix(&self) -> String {
        // Quoted because it may be a keyword.
        let schema = self.schema.as_ref();
        schema.map_or_else(String::new, |schema| format!("\"{schema}\"."))
    }

    /// What is called like the table and then this.
    pub(super) fn with(&self, suffix: &str) -> String {
        format!("{}\"{}{suffix}\"", self.prefix(), self.table)
    }

    /// What says which version the tables have.
    pub(super) fn version(&self) -> String {
        format!("{}cloakroom_schema", self.prefix())
    }

    /// `postgres.sql` with these names.
    pub(super) fn tables(&self) -> String {
        // In two steps, since `sessions` may be in the schema's name as well.
        include_str!("../postgres.sql")
            .replace("\"sessions", &format!("{}\"\0", self.prefix()))
            .replace("'sessions'", "'\0'")
            .replace("cloakroom_schema", &self.version())
            .replace('\0', &self.table)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.table)
    }
}

fn is_name(name: &str, longest: usize) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    starts_well && is_word && name.len() <= longest
}

/// The statements, in the order of `Operation`.
pub(super) fn statements(names: &Names) -> [String; OPERATIONS] {
    let [t, revoked, update, sign_in, delete_by_owner] =
        ["", "_revoked", "_update", "_sign_in", "_delete_by_owner"]
            .map(|suffix| names.with(suffix));
    let excluded = COLUMNS
        .split(", ")
        .map(|column| format!("EXCLUDED.{column}"))
        .collect::<Vec<_>>()
        .join(", ");
    [
        format!(
            "INSERT INTO {t} AS old (id, {COLUMNS}) VALUES ({VALUES}) \
             ON CONFLICT (id) DO UPDATE SET ({COLUMNS}) = ({excluded}) WHERE old.expires <= $15"
        ),
        format!("SELECT {COLUMNS} FROM {t} WHERE id = $1 AND expires > $2"),
        format!("SELECT answer, (stored).* FROM {update}(ROW({VALUES})::{t}, $15, $16)"),
        format!(
            "SELECT answer, (stored).* FROM {sign_in}(ROW({VALUES})::{t}, $15, $16, $17, $18, $19)"
        ),
        format!(
            "UPDATE {t} SET expires = greatest(expires, $2), seen = greatest(seen, $3) \
             WHERE id = $1 AND expires > $3"
        ),
        format!("DELETE FROM {t} WHERE id = $1"),
        // Rows that somebody else is at are left to them: no instance waits for another. The arrays are
        // computed once, whatever the planner thinks. A row that is locked stays where it is, so its place
        // will do, which saves a search for its id.
        format!(
            "WITH forgotten AS (\
             DELETE FROM {revoked} WHERE ctid = ANY (ARRAY(\
             SELECT ctid FROM {revoked} WHERE at <= $3 LIMIT $2 FOR UPDATE SKIP LOCKED))), \
             swept AS (\
             DELETE FROM {t} WHERE ctid = ANY (ARRAY(\
             SELECT ctid FROM {t} \
             WHERE expires <= $1 AND expires >= coalesce($4, timestamptz '-infinity') \
             ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED)) AND expires <= $1 \
             RETURNING expires) \
             SELECT count(*) AS deleted, greatest(max(expires), 'epoch') AS until FROM swept"
        ),
        format!("SELECT id, {COLUMNS} FROM {t} WHERE owner = $1 AND expires > $2"),
        format!("SELECT {delete_by_owner}($1, $2, $3) AS deleted"),
        format!(
            "DELETE FROM {t} WHERE id = ANY (ARRAY(SELECT id FROM {t} ORDER BY id FOR UPDATE))"
        ),
    ]
}

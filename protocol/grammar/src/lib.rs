//! What PostgreSQL's own grammar (libpg_query) says of a text, reduced to what the scan must agree with.
//!
//! The tree is walked as JSON, which leaves out no kind of node. Nothing here knows the scan.

use std::collections::HashSet;

use serde_json::Value;

pub mod suite;

/// What a database calls its names, as its rows came.
#[derive(Debug, Default, Clone)]
pub struct Names {
    /// Functions of which none is unsafe.
    pub safe: HashSet<String>,
    /// Functions one of which is unsafe.
    pub functions: HashSet<String>,
    /// Relations behind which something hides.
    pub relations: HashSet<String>,
    /// All rows, for the scan.
    pub rows: Vec<(String, String)>,
}

impl Names {
    /// Of rows `KIND|NAME`, one a line.
    pub fn read(&mut self, lines: &str) {
        for (kind, name) in lines.lines().filter_map(|line| line.split_once('|')) {
            let name = name.to_owned();
            match kind {
                "safe" => drop(self.safe.insert(name.clone())),
                "function" => drop(self.functions.insert(name.clone())),
                "relation" => drop(self.relations.insert(name.clone())),
                _ => {}
            }
            self.rows.push((kind.to_owned(), name));
        }
    }
}

/// What a text may do, by its tree.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Statements in it.
    pub statements: usize,
    /// The kind of the first.
    pub kind: String,
    /// What makes it more than a read; empty for a read.
    pub writes: Vec<String>,
    /// Functions that it calls.
    pub functions: Vec<String>,
    /// Names behind a dot, or of a column: a function of that name may be called by them.
    pub fields: Vec<String>,
    /// Relations that it names.
    pub relations: Vec<String>,
}

impl Facts {
    /// Of a text, if it is one to PostgreSQL.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let parsed = pg_query::parse(text).ok()?;
        let statements = &parsed.protobuf.stmts;
        let mut facts = Self {
            statements: statements.len(),
            ..Self::default()
        };
        for (at, raw) in statements.iter().enumerate() {
            let node = serde_json::to_value(raw.stmt.as_ref()?).ok()?;
            let (kind, body) = variant(&node["node"])?;
            if at == 0 {
                kind.clone_into(&mut facts.kind);
            }
            facts.top(kind, body);
        }
        Some(facts)
    }

    fn top(&mut self, kind: &str, body: &Value) {
        match kind {
            "SelectStmt" | "VariableShowStmt" => self.walk(body),
            "ExplainStmt" if is_run(body) => match variant(&body["query"]["node"]) {
                Some(("SelectStmt", query)) => self.walk(query),
                other => self
                    .writes
                    .push(format!("EXPLAIN ANALYZE {:?}", other.map(|(k, _)| k))),
            },
            "ExplainStmt" => {
                let explained = variant(&body["query"]["node"]).map(|(kind, _)| kind);
                let known = [
                    "SelectStmt",
                    "InsertStmt",
                    "UpdateStmt",
                    "DeleteStmt",
                    "MergeStmt",
                ];
                if !explained.is_some_and(|kind| known.contains(&kind)) {
                    self.writes.push(format!("EXPLAIN {explained:?}"));
                }
                // It is not run: nothing in it writes or calls.
                let mut inside = Self::default();
                inside.walk(body);
                self.relations.append(&mut inside.relations);
            }
            other => self.writes.push(other.to_owned()),
        }
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                for (name, inner) in fields {
                    self.note(name, inner);
                    self.walk(inner);
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, name: &str, inner: &Value) {
        match name {
            "FuncCall" => self.functions.extend(last_name(&inner["funcname"])),
            "RangeVar" => self
                .relations
                .extend(inner["relname"].as_str().map(str::to_owned)),
            "A_Indirection" => self.fields.extend(last_name(&inner["indirection"])),
            "ColumnRef" => self.fields.extend(last_name(&inner["fields"])),
            "into_clause" if !inner.is_null() => self.writes.push("INTO".to_owned()),
            "LockingClause" => self.writes.push("locking clause".to_owned()),
            _ if name.ends_with("Stmt") && name != "SelectStmt" => {
                self.writes.push(name.to_owned())
            }
            _ => {}
        }
    }

    /// Why a statement that was called a read may be none, in a database with these names.
    #[must_use]
    pub fn why_no_read(&self, names: &Names) -> Option<String> {
        if self.statements != 1 {
            return Some(format!("{} statements", self.statements));
        }
        let mut called = self.functions.iter().chain(&self.fields);
        let function = called.find(|name| names.functions.contains(*name));
        // Each is named by a token of its own, or by a syntax of its own that is built in.
        let unknown = self
            .functions
            .iter()
            .find(|name| !names.safe.contains(*name));
        let relation = self
            .relations
            .iter()
            .find(|name| names.relations.contains(*name));
        self.writes
            .first()
            .or(function)
            .or(unknown)
            .or(relation)
            .cloned()
    }

    /// Whether it is a SELECT of which everything that matters is known to be harmless.
    #[must_use]
    pub fn is_plain_select(&self, names: &Names) -> bool {
        self.kind == "SelectStmt" && self.why_no_read(names).is_none()
    }
}

/// The one field of a node: its kind and what it is.
fn variant(node: &Value) -> Option<(&str, &Value)> {
    node.as_object()?
        .iter()
        .next()
        .map(|(kind, body)| (kind.as_str(), body))
}

fn last_name(list: &Value) -> Option<String> {
    let last = list.as_array()?.last()?;
    last["node"]["String"]["sval"].as_str().map(str::to_owned)
}

/// Whether an EXPLAIN runs its statement: ANALYZE in any of its options.
fn is_run(explain: &Value) -> bool {
    let options = explain["options"].as_array();
    options.into_iter().flatten().any(|option| {
        let option = &option["node"]["DefElem"];
        let value = option["arg"]["node"]["String"]["sval"].as_str();
        option["defname"].as_str() == Some("analyze")
            && !value.is_some_and(|v| ["false", "off"].contains(&v.to_lowercase().as_str()))
    })
}

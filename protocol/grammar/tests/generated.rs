//! Statements that a seed makes, nested and written in all ways: where the scan says that one is a read, the
//! tree of PostgreSQL's grammar agrees. Some of their functions write, and some are not known.

use pooler_grammar::{Facts, Names};
use pooler_protocol::route::{Catalogue, Reason, Verdict, classify};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const NAMES: &str = "safe|lower\nsafe|count\nsafe|sum\nsafe|int4\nsafe|generate_series\nsafe|substring\nsafe|btrim\nsafe|extract\n\
    safe|timezone\nsafe|position\nsafe|overlay\nsafe|like_escape\nsafe|similar_to_escape\nsafe|bernoulli\nsafe|now\nsafe|left\n\
    safe|overlaps\nsafe|xmlexists\nsafe|normalize\nsafe|is_normalized\n\
    function|writes\nfunction|nextval\nfunction|Wri tes\nrelation|hides";

struct Writer {
    random: SmallRng,
    /// One in so many choices is a bad one.
    bad: u32,
}

impl Writer {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_ratio(1, n)
    }

    fn any<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.random.random_range(0..list.len())]
    }

    fn bad(&mut self) -> bool {
        let bad = self.bad;
        self.one_in(bad)
    }

    fn statement(&mut self) -> String {
        let query = self.query(3);
        let text = match self.random.random_range(0..12) {
            0 => format!("EXPLAIN {query}"),
            1 => format!("EXPLAIN ANALYZE {query}"),
            2 => format!(
                "EXPLAIN (COSTS off, ANALYZE {}) {query}",
                self.any(&["", "on", "off", "1", "false"])
            ),
            3 if self.bad() => format!("{query}; {}", self.write()),
            _ => query,
        };
        self.spell(&text)
    }

    fn write(&mut self) -> String {
        let what = [
            "DELETE FROM t",
            "INSERT INTO t(a) VALUES (1)",
            "UPDATE t SET a = 1",
        ];
        format!("{} RETURNING a", self.any(&what))
    }

    fn query(&mut self, depth: u32) -> String {
        let inner = depth.saturating_sub(1);
        match self.random.random_range(0..10) {
            0 if depth > 0 => format!(
                "({}) {} ({})",
                self.query(inner),
                self.any(&["UNION ALL", "EXCEPT", "INTERSECT"]),
                self.query(inner)
            ),
            1 if depth > 0 => {
                let with = self.with(inner);
                let query = self.select(inner);
                format!("{with} {query}")
            }
            2 => format!(
                "VALUES ({}, {})",
                self.expression(inner),
                self.expression(inner)
            ),
            3 => format!("TABLE {}", self.table()),
            _ => self.select(depth),
        }
    }

    fn with(&mut self, depth: u32) -> String {
        let mut parts = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let name = self.any(&[
                "x",
                "lower",
                "fresh",
                "\"x y\"",
                "w(a)",
                "fresh (a, b)",
                "writes(a)",
            ]);
            let name = if name.contains("writes") && !self.bad() {
                "z(a)"
            } else {
                name
            };
            let body = if self.bad() {
                self.write()
            } else {
                self.query(depth)
            };
            let how = self.any(&["", "MATERIALIZED", "NOT MATERIALIZED"]);
            parts.push(format!("{name} AS {how} ({body})"));
        }
        format!("WITH {} {}", self.any(&["", "RECURSIVE"]), parts.join(", "))
    }

    fn select(&mut self, depth: u32) -> String {
        let distinct = self.any(&["", "", "", "ALL", "DISTINCT", "DISTINCT ON (a)"]);
        let mut text = format!("SELECT {distinct} {}", self.expression(depth));
        if self.one_in(2) {
            text += &format!(
                ", {} AS {}",
                self.expression(depth),
                self.any(&["b", "\"c\"", "over", "filter"])
            );
        }
        if self.bad() {
            text += " INTO made";
        }
        text += &format!(" FROM {}", self.from(depth));
        if self.one_in(2) {
            text += &format!(" WHERE {}", self.expression(depth));
        }
        if self.one_in(4) {
            text += &format!(
                " GROUP BY {}",
                self.any(&["1", "(a)", "ROLLUP (a)", "GROUPING SETS ((a), CUBE (a, b))"])
            );
        }
        if self.one_in(5) {
            text += &format!(
                " ORDER BY {} LIMIT ({})",
                self.expression(0),
                self.expression(0)
            );
        }
        if self.bad() {
            text += self.any(&[
                " FOR UPDATE",
                " FOR NO KEY UPDATE OF a",
                " FOR SHARE",
                " FOR KEY SHARE NOWAIT",
            ]);
        }
        text
    }

    fn table(&mut self) -> &'static str {
        if self.bad() {
            return self.any(&["hides", "\"hides\"", "s.hides"]);
        }
        self.any(&["t", "s.t", "\"T\"", "lower", "s.\"fresh\""])
    }

    fn from(&mut self, depth: u32) -> String {
        let alias = self.any(&["", "AS u", "u", "AS u(a)", "u(a, b)", "AS fresh(a)"]);
        let item = match self.random.random_range(0..6) {
            0 if depth > 0 => format!(
                "({}) AS u{}",
                self.query(depth - 1),
                self.any(&["", "(a)", " (a, b)"])
            ),
            1 => format!("{}(1, 2) {alias}", self.function()),
            2 => format!("{}(1, 2) WITH ORDINALITY {alias}", self.function()),
            3 => format!("LATERAL {}(1) {alias}", self.function()),
            4 => format!("ROWS FROM ({}(1), lower(2)) {alias}", self.function()),
            _ => format!("{} {alias}", self.table()),
        };
        match self.random.random_range(0..5) {
            0 => format!("{item}, {}", self.from(0)),
            1 => format!("{item} JOIN {} v ON ({})", self.table(), self.expression(0)),
            2 => format!("{item} LEFT JOIN {} v USING (a)", self.table()),
            _ => item,
        }
    }

    fn function(&mut self) -> &'static str {
        if self.bad() {
            return self.any(&[
                "writes",
                "fresh",
                "s.fresh",
                "\"Wri tes\"",
                "nextval",
                "pg_catalog.nextval",
                "\"writes\"",
            ]);
        }
        self.any(&[
            "lower",
            "generate_series",
            "pg_catalog.lower",
            "\"sum\"",
            "s . lower",
        ])
    }

    fn expression(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self
                .any(&[
                    "1",
                    "a",
                    "$1",
                    "'x;y'",
                    "b.c",
                    "$$ INSERT $$",
                    "E'\\''",
                    "1.5e3",
                    "NULL",
                    "current_user",
                ])
                .to_owned();
        }
        let inner = depth - 1;
        match self.random.random_range(0..16) {
            0 => format!("{}({})", self.function(), self.expression(inner)),
            1 => format!(
                "{}({}) FILTER (WHERE {})",
                self.function(),
                self.expression(inner),
                self.expression(inner)
            ),
            2 => format!(
                "sum({}) OVER (PARTITION BY {} ORDER BY ({}))",
                self.expression(inner),
                self.expression(inner),
                self.expression(inner)
            ),
            3 => format!("({})", self.query(inner)),
            4 => format!("{} IN ({})", self.expression(0), self.query(inner)),
            5 => format!("NOT EXISTS ({})", self.query(inner)),
            6 => format!(
                "CASE WHEN ({}) THEN {} ELSE {}({}) END",
                self.expression(0),
                self.expression(inner),
                self.function(),
                self.expression(0)
            ),
            7 => format!(
                "({})::{}",
                self.expression(inner),
                self.any(&[
                    "int",
                    "numeric(3, 1)",
                    "varchar (3)",
                    "s.kind",
                    "timestamp (3) with time zone"
                ])
            ),
            8 => format!(
                "{} OPERATOR(pg_catalog.+) {}({})",
                self.expression(0),
                self.function(),
                self.expression(0)
            ),
            9 => format!(
                "({}).{}",
                self.expression(inner),
                self.any(&["a", "lower", "b"])
            ),
            10 if self.bad() => format!("(t).{}", self.any(&["writes", "\"Wri tes\""])),
            11 => format!(
                "coalesce({}, ARRAY[{}], ROW({}))",
                self.expression(inner),
                self.expression(0),
                self.expression(inner)
            ),
            12 => format!("a AT TIME ZONE {}({})", self.function(), self.expression(0)),
            13 => format!(
                "{} BETWEEN {}({}) AND {}",
                self.expression(0),
                self.function(),
                self.expression(0),
                self.expression(0)
            ),
            14 => format!(
                "extract(year FROM {}) + substring({} FROM 1 FOR 2)",
                self.expression(0),
                self.expression(0)
            ),
            _ => format!(
                "{} {} {}",
                self.expression(inner),
                self.any(&["+", "=", "AND", "||", "IS DISTINCT FROM", "LIKE"]),
                self.expression(inner)
            ),
        }
    }

    /// The same with other blanks, comments and letters, outside of quotes.
    fn spell(&mut self, text: &str) -> String {
        let mut spelled = String::new();
        let mut quote = None;
        for c in text.chars() {
            match (quote, c) {
                (None, '\'' | '"' | '$') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                _ => {}
            }
            if quote.is_none() && c == ' ' && self.one_in(4) {
                spelled += self.any(&["\n", "\t ", " /* ; */ ", " -- '\n", "  /* /* */ */ "]);
            } else if quote.is_none() && self.one_in(6) {
                spelled.extend(c.to_uppercase());
            } else {
                spelled.push(c);
            }
        }
        spelled
    }
}

#[test]
fn t65_t66_no_generated_statement_is_falsely_a_read() {
    let mut names = Names::default();
    names.read(NAMES);
    let rows = names.rows.iter();
    let catalogue = Catalogue::from_rows(rows.map(|(k, n)| (k.as_bytes(), n.as_bytes())));
    let (mut parsed, mut reads, mut plain, mut found, mut multiple) = (0, 0, 0, 0, 0);
    for seed in 0..40_000 {
        let random = SmallRng::seed_from_u64(seed);
        let bad = if seed % 2 == 0 { 40 } else { 2_000 };
        let text = Writer { random, bad }.statement();
        let Some(facts) = Facts::of(&text) else {
            continue;
        };
        parsed += 1;
        let verdict = classify(text.as_bytes(), &catalogue);
        if verdict == Verdict::Read {
            reads += 1;
            assert_eq!(facts.why_no_read(&names), None, "seed {seed}: {text}");
        }
        if let Verdict::Unproven(doubt) = verdict {
            multiple += usize::from(doubt.reason == Reason::SeveralStatements);
        }
        if facts.is_plain_select(&names) {
            plain += 1;
            found += usize::from(verdict == Verdict::Read);
        }
    }
    println!(
        "{parsed} parsed, {reads} reads, {plain} plain SELECTs, {found} of these found, {multiple} of several"
    );
    assert!(parsed > 20_000, "{parsed} statements are any");
    assert!(parsed - reads > 4_000, "most are reads");
    // Many have lists of columns behind a name where few people write one.
    assert!(found * 100 >= plain * 80, "{found} of {plain} found");
}

//! Every statement of PostgreSQL's regression suite, as the scan takes it and as the grammar does.

use std::collections::BTreeMap;

use pooler_grammar::{Facts, suite};
use pooler_protocol::route::{Catalogue, Verdict, classify};

/// Of the plain SELECTs, at least so many in a hundred must be found.
const FOUND_PERCENT_MIN: usize = 90;

#[test]
fn t64_t65_t66_no_statement_of_the_suite_is_falsely_a_read() {
    let (mut all, mut parsed, mut reads, mut plain, mut found) = (0, 0, 0, 0, 0);
    let mut wrong = Vec::new();
    let mut missed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for part in suite::run() {
        let rows = part.names.rows.iter();
        let catalogue = Catalogue::from_rows(rows.map(|(k, n)| (k.as_bytes(), n.as_bytes())));
        for text in &part.statements {
            all += 1;
            let verdict = classify(text.as_bytes(), &catalogue);
            reads += usize::from(verdict == Verdict::Read);
            let Some(facts) = Facts::of(text) else {
                // Not every error of syntax is seen, and none does harm.
                continue;
            };
            parsed += 1;
            if verdict == Verdict::Read {
                let why = facts.why_no_read(&part.names);
                wrong.extend(why.map(|why| format!("{}: {why}: {text}", part.name)));
            }
            if facts.is_plain_select(&part.names) {
                plain += 1;
                match verdict {
                    Verdict::Read => found += 1,
                    Verdict::Unproven(doubt) => {
                        let list = missed.entry(doubt.reason.name()).or_default();
                        let word = String::from_utf8_lossy(doubt.word(text.as_bytes()));
                        list.push(format!("{}: {word}: {text}", part.name));
                    }
                    other => panic!("{other:?}: {text}"),
                }
            }
        }
    }
    println!(
        "{all} statements, {parsed} of them parsed, {reads} reads, {plain} plain SELECTs, {found} of these found"
    );
    for (reason, list) in &missed {
        println!("missed, {reason}: {}", list.len());
        list.iter()
            .take(12)
            .for_each(|text| println!("    {}", text.replace('\n', " ")));
    }
    assert!(
        wrong.is_empty(),
        "{} falsely reads:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(all > 30_000, "{all} statements: where is the suite?");
    assert!(
        found * 100 >= plain * FOUND_PERCENT_MIN,
        "{found} of {plain} found"
    );
}

//! `pg_hba.conf` and `pg_ident.conf`, and files that they include.

use std::path::{Path, PathBuf};

use pooler_protocol::hba::{Asked, Came, Decision, Facts, Files, IdentMaps, Need, Rules};

use super::{take, take_part};

/// Every file but the first has the same text, so that includes go round in circles.
struct Two<'a>(&'a str, &'a str);

impl Files for Two<'_> {
    fn read(&mut self, path: &Path) -> Result<Option<String>, String> {
        let text = if path == Path::new("hba") {
            self.0
        } else {
            self.1
        };
        match path.as_os_str().len() % 5 {
            4 => Ok(None),
            _ => Ok(Some(text.to_owned())),
        }
    }

    fn list(&mut self, directory: &Path) -> Result<Vec<PathBuf>, String> {
        Ok(vec![directory.join("a.conf"), directory.join(".b.conf")])
    }
}

/// See the module.
pub fn run(mut data: &[u8]) {
    let kind = take(&mut data);
    let second = String::from_utf8_lossy(take_part(&mut data)).into_owned();
    let first = String::from_utf8_lossy(&data[..data.len().min(2000)]).into_owned();
    let mut files = Two(&first, &second);
    if kind & 1 == 0 {
        rules(&mut files);
    } else {
        maps(&mut files);
    }
}

fn rules(files: &mut Two<'_>) {
    let rules = match Rules::read(Path::new("hba"), files) {
        Ok(rules) => rules,
        Err(errors) => {
            assert!(!errors.is_empty() && errors.iter().all(|e| !e.message.contains('\n')));
            return;
        }
    };
    let local = "127.0.0.1".parse().expect("an address");
    for came in [
        Came::Local,
        Came::Tcp {
            address: local,
            encrypted: true,
        },
    ] {
        let asked = Asked {
            user: "a",
            database: "b",
            replication: false,
            came,
        };
        // Each fact is asked for once at most, and then there is a decision.
        let mut facts = Facts::default();
        for round in 0.. {
            assert!(round <= 3, "a fact is asked for twice");
            match rules.decide(&asked, &facts) {
                Decision::Needs(Need::Roles) if facts.roles.is_none() => {
                    facts.roles = Some(vec!["a".to_owned()])
                }
                Decision::Needs(Need::HostName) if facts.host_name.is_none() => {
                    facts.host_name = Some(None)
                }
                Decision::Needs(Need::Networks) if facts.networks.is_none() => {
                    facts.networks = Some(Vec::new())
                }
                Decision::Needs(need) => panic!("{need:?} is known"),
                Decision::Rule(rule) => {
                    assert!(rules.all().iter().any(|r| r.place == rule.place));
                    again(&rule.text);
                    break;
                }
                Decision::None => break,
            }
        }
    }
}

/// A rule as it is shown is a rule again, and shown the same.
fn again(text: &str) {
    let mut files = Two(text, "");
    if text.contains('@') || text.contains("include") || text.contains('\\') {
        return;
    }
    let rules = Rules::read(Path::new("hba"), &mut files).expect("it was one");
    assert_eq!(rules.all()[0].text, text);
}

fn maps(files: &mut Two<'_>) {
    if let Ok(maps) = IdentMaps::read(Path::new("hba"), files) {
        let roles = ["a".to_owned()];
        for map in [None, Some("m")] {
            assert!(maps.allows(map, "a@b", "a", Some(&roles)).is_ok());
            let unknown = maps.allows(map, "a@b", "a", None);
            assert!(unknown.is_ok() || maps.needs_roles());
        }
    }
}

//! Method pam: the system's modules say whose password is right. The services are files of the test's own, whose
//! passwords a script judges (pam_exec, one of Linux-PAM's own modules).

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pooler::demo::make_dir;

use crate::support::{Pooler, postgres, wait_until};
use crate::{refused, try_login};

/// A directory of services: `script` reads the password and decides.
fn services(name: &str, script: &str) -> PathBuf {
    let dir = make_dir(name).unwrap();
    let program = dir.join("judge");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let judge = format!(
        "auth required pam_exec.so quiet expose_authtok {}\n",
        program.display()
    );
    let open = "account required pam_permit.so\n";
    for (service, text) in [
        ("postgresql", format!("{judge}{open}")),
        ("closed", format!("{judge}account required pam_deny.so\n")),
        ("broken", format!("auth required pam_not_there.so\n{open}")),
    ] {
        std::fs::write(dir.join(service), text).unwrap();
    }
    dir
}

fn rules(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("pg_hba.conf");
    std::fs::write(&path, text).unwrap();
    path
}

/// Users' passwords are their names and an s; PAM is told who comes from where.
#[test]
fn the_system_says_who_gets_in() {
    let dir = services(
        "pam1",
        "p=$(tr -d '\\0'); [ \"$p\" = \"${PAM_USER}s\" ] && [ \"$PAM_RHOST\" = 127.0.0.1 ] && [ \"$PAM_TYPE\" = auth ]",
    );
    let hba = rules(
        &dir,
        "host closed all all pam pamservice=closed\nhost broken all all pam pamservice=broken\n\
         host named all all pam pam_use_hostname=1\nhost all all all pam\n",
    );
    let database = |name: &str| {
        format!(
            "[databases.{name}]\ncluster = \"main\"\ndbname = \"postgres\"\nuser = \"postgres\"\n"
        )
    };
    let sections: String = ["open", "closed", "broken", "named"].map(database).concat();
    let pooler = Pooler::before(postgres())
        .auth("type = \"hba\"")
        .auth(&format!("hba_file = {hba:?}"))
        .auth(&format!("pam_dir = {dir:?}"))
        .section(&sections)
        .start();
    let port = pooler.port();
    let mut bob = try_login(port, "bob", "open", "bobs").expect("a login");
    assert_eq!(bob.one("SELECT current_user"), "postgres");
    for (database, user, password) in [
        ("open", "bob", "anns"),
        ("open", "gone", "bobs"),
        ("closed", "bob", "bobs"),
        ("closed", "ann", "x"),
    ] {
        let error = refused(port, user, database, password);
        let text = format!("PAM authentication failed for user \"{user}\"");
        assert_eq!(
            (error.sqlstate(), error.text()),
            ("28000".to_owned(), text),
            "{database}"
        );
    }
    assert_eq!(
        refused(port, "bob", "open", "").text(),
        "empty password returned by client"
    );
    assert!(
        try_login(port, "bob", "broken", "bobs").is_err(),
        "a module that is not there"
    );
    // The script wants the address; 127.0.0.1 has a name here, or the address stands for it.
    let named = try_login(port, "bob", "named", "bobs").is_ok();
    let name = std::fs::read_to_string("/etc/hosts").is_ok_and(|hosts| hosts.contains("localhost"));
    assert!(
        !(named && name),
        "with pam_use_hostname it is told the name"
    );
    let log = pooler.log();
    assert!(!log.contains("bobs") && !log.contains("anns"), "t63: {log}");
}

/// A module that hangs holds up nobody but who asks, and that one not for ever; nor does it hold up the end.
#[test]
fn a_module_that_hangs_holds_up_nobody_else() {
    let dir = services(
        "pam2",
        "cd \"$(dirname \"$0\")\"; touch asked; until [ -e go ]; do sleep 0.2; done",
    );
    let hba = rules(&dir, "host all trusted all trust\nhost all all all pam\n");
    let pooler = Pooler::before(postgres())
        .set("workers = 1")
        .auth("type = \"hba\"")
        .auth(&format!("hba_file = {hba:?}"))
        .auth(&format!("pam_dir = {dir:?}"))
        .auth("pam_timeout = \"2s\"")
        .start();
    let port = pooler.port();
    std::thread::scope(|scope| {
        // More than are asked at a time.
        let hanging: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| refused(port, "bob", "postgres", "bobs")))
            .collect();
        wait_until("PAM is asked", || dir.join("asked").exists());
        let error = refused(port, "trusted", "postgres", "");
        // PostgreSQL says so: the pooler let it in.
        assert!(error.text().contains("does not exist"), "{error:?}");
        for login in hanging {
            assert_eq!(login.join().unwrap().sqlstate(), "08001");
        }
    });
    assert!(
        pooler
            .log()
            .contains("no answer within auth.pam_timeout (2s)"),
        "{}",
        pooler.log()
    );
    pooler.signal("QUIT");
    let _status = pooler.wait_exit();
    // The modules are children of nobody now; this ends them.
    std::fs::write(dir.join("go"), "").unwrap();
}

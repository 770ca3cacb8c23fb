//! Asks the system's PAM whether a password is right.
//!
//! ```text
//! pam_start -> pam_authenticate -> pam_acct_mgmt -> pam_end
//! ```
//! The library is opened when it is first needed, so a program that never asks runs, and is built, where there
//! is none. Everything here blocks, for as long as the modules of the service like: callers keep it off
//! threads that serve anybody.
//!
//! The only unsafe code of the workspace is in this file. What makes it sound: the structures are those of
//! Linux-PAM's `security/_pam_types.h`; a conversation lives longer than the handle that points to it
//! (`Handle` borrows it, and ends in `Drop`); answers are allocated by `calloc` and `strdup`, as PAM frees them;
//! the callback cannot panic.
//!
//! Linux-PAM's documentation: "The Linux-PAM Application Developers' Guide".

use std::ffi::{CStr, CString, OsStr};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use libc::{c_char, c_int, c_void};
use libloading::Library;
use zeroize::Zeroizing;

/// Where the library is called so: on Linux, and on macOS.
const NAMES: &[&str] = &["libpam.so.0", "libpam.2.dylib"];

/// Bytes of an answer that PAM's own modules take (`PAM_MAX_RESP_SIZE`), without the zero at its end.
const PASSWORD_BYTES_MAX: usize = 511;

const SUCCESS: c_int = 0;
const BUF_ERR: c_int = 5;
const CONV_ERR: c_int = 19;
const RHOST: c_int = 4;
const PROMPT_ECHO_OFF: c_int = 1;
const ERROR_MSG: c_int = 3;
const TEXT_INFO: c_int = 4;
const SILENT: c_int = 0x8000;
const MESSAGES_MAX: c_int = 32;

/// What PAM says when it cannot judge: PAM_AUTHINFO_UNAVAIL (whom it asks is away), PAM_ABORT. Anything else that
/// is no success is a refusal, whatever its name: `pam_exec` calls a wrong password a system error.
const CANNOT_SAY: &[c_int] = &[9, 26];

/// Why PAM says neither yes nor no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PamError {
    /// There is no library, or one that lacks a function.
    #[error("cannot load PAM: {0}")]
    Library(String),
    /// A name with a zero in it.
    #[error("a name has a zero in it")]
    Zero,
    /// PAM's own words.
    #[error("{call}: {why}")]
    Failed {
        /// Which of its functions.
        call: &'static str,
        /// What it says.
        why: String,
    },
}

/// What PAM says of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is right, and the account may be used.
    Right,
    /// Not that, in PAM's words.
    Refused(String),
}

/// Whose password is to be judged by what.
#[derive(Debug)]
pub struct Question<'a> {
    /// The service: a file in `/etc/pam.d`.
    pub service: &'a str,
    /// Another directory than that.
    pub directory: Option<&'a Path>,
    /// Who comes in.
    pub user: &'a str,
    /// With what.
    pub password: &'a str,
    /// From where (`PAM_RHOST`).
    pub from: &'a str,
}

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse =
    unsafe extern "C" fn(c_int, *const *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conv {
    converse: Converse,
    data: *mut c_void,
}

type Opaque = c_void;

/// The functions of the library.
struct Pam {
    start:
        unsafe extern "C" fn(*const c_char, *const c_char, *const Conv, *mut *mut Opaque) -> c_int,
    /// Since Linux-PAM 1.4.
    start_confdir: Option<
        unsafe extern "C" fn(
            *const c_char,
            *const c_char,
            *const Conv,
            *const c_char,
            *mut *mut Opaque,
        ) -> c_int,
    >,
    end: unsafe extern "C" fn(*mut Opaque, c_int) -> c_int,
    authenticate: unsafe extern "C" fn(*mut Opaque, c_int) -> c_int,
    acct_mgmt: unsafe extern "C" fn(*mut Opaque, c_int) -> c_int,
    set_item: unsafe extern "C" fn(*mut Opaque, c_int, *const c_void) -> c_int,
    strerror: unsafe extern "C" fn(*mut Opaque, c_int) -> *const c_char,
    /// The pointers above are good for as long as it is open.
    _library: Library,
}

impl Pam {
    fn open() -> Result<Self, String> {
        let mut why = String::new();
        for name in NAMES {
            // SAFETY: libpam's initialisers have no precondition; it is the library that every login of the
            // system goes through.
            match unsafe { Library::new(*name) } {
                Ok(library) => return Self::of(library).map_err(|e| e.to_string()),
                Err(e) if why.is_empty() => why = e.to_string(),
                Err(_) => {}
            }
        }
        Err(why)
    }

    fn of(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of the declarations in security/pam_appl.h and _pam_types.h.
        unsafe {
            Ok(Self {
                start: *library.get(b"pam_start\0")?,
                start_confdir: library.get(b"pam_start_confdir\0").ok().map(|f| *f),
                end: *library.get(b"pam_end\0")?,
                authenticate: *library.get(b"pam_authenticate\0")?,
                acct_mgmt: *library.get(b"pam_acct_mgmt\0")?,
                set_item: *library.get(b"pam_set_item\0")?,
                strerror: *library.get(b"pam_strerror\0")?,
                _library: library,
            })
        }
    }
}

fn pam() -> Result<&'static Pam, PamError> {
    static PAM: OnceLock<Result<Pam, String>> = OnceLock::new();
    let opened = PAM.get_or_init(Pam::open).as_ref();
    opened.map_err(|why| PamError::Library(why.clone()))
}

/// Whether PAM can be asked at all.
///
/// # Errors
/// [`PamError::Library`]
pub fn available() -> Result<(), PamError> {
    pam().map(|_| ())
}

/// Asks. Blocks, without a bound of its own.
///
/// # Errors
/// [`PamError`]: PAM cannot say.
pub fn check(question: &Question<'_>) -> Result<Answer, PamError> {
    let c_string = |text: &[u8]| CString::new(text).map_err(|_| PamError::Zero);
    let password = question.password;
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX || password.contains('\0') {
        return Ok(Answer::Refused("no password that PAM takes".to_owned()));
    }
    let pam = pam()?;
    let password = Zeroizing::new(c_string(password.as_bytes())?);
    let (service, user) = (
        c_string(question.service.as_bytes())?,
        c_string(question.user.as_bytes())?,
    );
    let directory = question
        .directory
        .map(|d| c_string(OsStr::as_bytes(d.as_ref())))
        .transpose()?;
    let conv = Conv {
        converse,
        data: password.as_ptr().cast_mut().cast(),
    };
    let mut handle = Handle::start(pam, &service, &user, &conv, directory.as_deref())?;
    let from = c_string(question.from.as_bytes())?;
    let set = handle.set_from(&from);
    handle.expect("pam_set_item", set)?;
    let mut status = handle.authenticate();
    let mut call = "pam_authenticate";
    if status == SUCCESS {
        // The password is right; the account may still be closed, or the password too old.
        (call, status) = ("pam_acct_mgmt", handle.acct_mgmt());
    }
    match status {
        SUCCESS => Ok(Answer::Right),
        status if CANNOT_SAY.contains(&status) => Err(handle.failed(call, status)),
        status => Ok(Answer::Refused(handle.words(status))),
    }
}

/// A conversation with PAM under way; what it points to outlives it.
struct Handle<'a> {
    pam: &'static Pam,
    raw: *mut Opaque,
    /// What it said last, which `pam_end` is told.
    status: c_int,
    _borrows: PhantomData<&'a Conv>,
}

impl<'a> Handle<'a> {
    fn start(
        pam: &'static Pam,
        service: &CStr,
        user: &CStr,
        conv: &'a Conv,
        directory: Option<&CStr>,
    ) -> Result<Self, PamError> {
        let mut raw = null_mut();
        let status = match (directory, pam.start_confdir) {
            // SAFETY: the strings end with a zero and are copied by PAM; `conv` lives as long as the handle.
            (None, _) => unsafe {
                (pam.start)(service.as_ptr(), user.as_ptr(), conv, &raw mut raw)
            },
            // SAFETY: the same.
            (Some(directory), Some(start)) => unsafe {
                start(
                    service.as_ptr(),
                    user.as_ptr(),
                    conv,
                    directory.as_ptr(),
                    &raw mut raw,
                )
            },
            (Some(_), None) => {
                return Err(PamError::Library(
                    "pam_start_confdir needs Linux-PAM 1.4".to_owned(),
                ));
            }
        };
        let handle = Self {
            pam,
            raw,
            status,
            _borrows: PhantomData,
        };
        match status {
            SUCCESS => Ok(handle),
            _ => Err(handle.failed("pam_start", status)),
        }
    }

    fn set_from(&mut self, from: &CStr) -> c_int {
        // SAFETY: the handle is open (`start` returned it), the string ends with a zero and is copied.
        unsafe { (self.pam.set_item)(self.raw, RHOST, from.as_ptr().cast()) }
    }

    fn authenticate(&mut self) -> c_int {
        // SAFETY: the handle is open, and what its conversation points to is alive.
        self.status = unsafe { (self.pam.authenticate)(self.raw, SILENT) };
        self.status
    }

    fn acct_mgmt(&mut self) -> c_int {
        // SAFETY: as for `authenticate`.
        self.status = unsafe { (self.pam.acct_mgmt)(self.raw, SILENT) };
        self.status
    }

    fn words(&self, status: c_int) -> String {
        // SAFETY: PAM does not look at the handle, and returns a constant text or nothing.
        let text = unsafe { (self.pam.strerror)(self.raw, status) };
        if text.is_null() {
            return format!("status {status}");
        }
        // SAFETY: not null, so it is a text that ends with a zero.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    }

    fn failed(&self, call: &'static str, status: c_int) -> PamError {
        PamError::Failed {
            call,
            why: self.words(status),
        }
    }

    fn expect(&self, call: &'static str, status: c_int) -> Result<(), PamError> {
        match status {
            SUCCESS => Ok(()),
            _ => Err(self.failed(call, status)),
        }
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: the handle is open, and not used after this.
            let _told = unsafe { (self.pam.end)(self.raw, self.status) };
        }
    }
}

/// Answers what PAM asks: a question without an echo with the password, notices with nothing. Anything else
/// nobody could answer here, as in PostgreSQL.
unsafe extern "C" fn converse(
    count: c_int,
    messages: *const *const Message,
    responses: *mut *mut Response,
    password: *mut c_void,
) -> c_int {
    if count <= 0
        || count > MESSAGES_MAX
        || messages.is_null()
        || responses.is_null()
        || password.is_null()
    {
        return CONV_ERR;
    }
    let Ok(n) = usize::try_from(count) else {
        return CONV_ERR;
    };
    // SAFETY: calloc has no precondition; zeroed bytes are valid Responses.
    let answers: *mut Response = unsafe { libc::calloc(n, size_of::<Response>()) }.cast();
    if answers.is_null() {
        return BUF_ERR;
    }
    let mut status = SUCCESS;
    for at in 0..n {
        // SAFETY: on Linux `messages` are `n` pointers, each to a message.
        let message = unsafe { *messages.add(at) };
        if message.is_null() {
            status = CONV_ERR;
            break;
        }
        // SAFETY: not null, so it is one of those messages.
        let style = unsafe { (*message).style };
        match style {
            PROMPT_ECHO_OFF => {
                // SAFETY: `password` is the CString that `check` keeps alive; `answers` has `n` places.
                let copy = unsafe { libc::strdup(password.cast::<c_char>().cast_const()) };
                if copy.is_null() {
                    status = BUF_ERR;
                    break;
                }
                // SAFETY: see above.
                unsafe { (*answers.add(at)).text = copy };
            }
            ERROR_MSG | TEXT_INFO => {}
            _ => {
                status = CONV_ERR;
                break;
            }
        }
    }
    if status == SUCCESS {
        // SAFETY: not null; PAM gives a place for one pointer, and frees what it points to.
        unsafe { *responses = answers };
        return SUCCESS;
    }
    for at in 0..n {
        // SAFETY: every text is null or what strdup gave, and nobody else knows it.
        unsafe {
            let text = (*answers.add(at)).text;
            if !text.is_null() {
                libc::explicit_bzero(text.cast(), libc::strlen(text));
                libc::free(text.cast());
            }
        }
    }
    // SAFETY: it is what calloc gave.
    unsafe { libc::free(answers.cast()) };
    // SAFETY: not null; PAM looks at nothing there after an error.
    unsafe { *responses = null::<Response>().cast_mut() };
    status
}

#[cfg(all(test, target_os = "linux"))]
#[allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and speak"
)]
mod tests {
    use super::*;

    fn ask(name: &str, service: &str, user: &str, password: &str) -> Result<Answer, PamError> {
        let directory =
            std::env::temp_dir().join(format!("pooler-pam-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("test"), service).unwrap();
        let answer = check(&Question {
            service: "test",
            directory: Some(&directory),
            user,
            password,
            from: "127.0.0.1",
        });
        std::fs::remove_dir_all(&directory).unwrap();
        answer
    }

    #[test]
    fn modules_decide() {
        available().unwrap();
        let permit = "auth required pam_permit.so\naccount required pam_permit.so\n";
        assert_eq!(ask("permit", permit, "bob", "x"), Ok(Answer::Right));
        let refused = |answer: Result<Answer, PamError>| matches!(answer, Ok(Answer::Refused(_)));
        let deny = "auth required pam_deny.so\naccount required pam_permit.so\n";
        assert!(refused(ask("deny", deny, "bob", "x")));
        let closed = "auth required pam_permit.so\naccount required pam_deny.so\n";
        assert!(
            refused(ask("closed", closed, "bob", "x")),
            "the account is closed"
        );
        assert!(
            refused(ask("empty", permit, "bob", "")),
            "an empty password is nobody's"
        );
        assert_eq!(ask("zero", permit, "b\0b", "x"), Err(PamError::Zero));
        let gone = "auth required pam_not_there.so\naccount required pam_permit.so\n";
        assert_ne!(
            ask("gone", gone, "bob", "x"),
            Ok(Answer::Right),
            "a module that is not there"
        );
    }
}

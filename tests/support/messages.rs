//! The messages that a client sends, as bytes. Names, texts and values are taken as they are, right or wrong.

/// A message of any type with any body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&length(body.len() + 4));
    out.extend_from_slice(body);
    out
}

/// A message that announces a length it need not have.
pub fn lying(tag: u8, announced: i32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&announced.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// A startup-style packet: length, code, body.
pub fn packet(code: i32, body: &[u8]) -> Vec<u8> {
    let mut out = length(body.len() + 8).to_vec();
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// The code of protocol `major`.`minor`.
pub fn version(major: i32, minor: i32) -> i32 {
    major << 16 | minor
}

/// The parameter list of a startup packet.
pub fn parameters(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        strings_into(&mut out, &[name, value]);
    }
    out.push(0);
    out
}

/// StartupMessage of protocol 3.0.
pub fn startup(pairs: &[(&str, &str)]) -> Vec<u8> {
    packet(version(3, 0), &parameters(pairs))
}

/// SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    packet(version(1234, 5679), b"")
}

/// GSSENCRequest.
pub fn gssenc_request() -> Vec<u8> {
    packet(version(1234, 5680), b"")
}

/// CancelRequest.
pub fn cancel_request(process_id: i32, key: &[u8]) -> Vec<u8> {
    packet(
        version(1234, 5678),
        &[&process_id.to_be_bytes()[..], key].concat(),
    )
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &cstr(sql))
}

/// Parse without parameter types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    parse_typed(name, sql, &[])
}

/// Parse with the types of its parameters.
pub fn parse_typed(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = cstr(name);
    strings_into(&mut body, &[sql]);
    body.extend_from_slice(&count(types.len()));
    for oid in types {
        body.extend_from_slice(&oid.to_be_bytes());
    }
    message(b'P', &body)
}

/// Bind with values in text format and results in text format.
pub fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = cstr(portal);
    strings_into(&mut body, &[statement]);
    body.extend_from_slice(&count(0));
    body.extend_from_slice(&count(values.len()));
    for value in values {
        body.extend_from_slice(&length(value.len()));
        body.extend_from_slice(value.as_bytes());
    }
    body.extend_from_slice(&count(0));
    message(b'B', &body)
}

/// Execute to the end.
pub fn execute(portal: &str) -> Vec<u8> {
    execute_rows(portal, 0)
}

/// Execute at most `rows` rows.
pub fn execute_rows(portal: &str, rows: i32) -> Vec<u8> {
    let mut body = cstr(portal);
    body.extend_from_slice(&rows.to_be_bytes());
    message(b'E', &body)
}

/// Describe of a statement.
pub fn describe(statement: &str) -> Vec<u8> {
    message(b'D', &[b"S", &cstr(statement)[..]].concat())
}

/// Describe of a portal.
pub fn describe_portal(portal: &str) -> Vec<u8> {
    message(b'D', &[b"P", &cstr(portal)[..]].concat())
}

/// Close of a statement.
pub fn close(statement: &str) -> Vec<u8> {
    message(b'C', &[b"S", &cstr(statement)[..]].concat())
}

/// Close of a portal.
pub fn close_portal(portal: &str) -> Vec<u8> {
    message(b'C', &[b"P", &cstr(portal)[..]].concat())
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// Flush.
pub fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    message(b'X', b"")
}

/// CopyData.
pub fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', data)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

/// CopyFail.
pub fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &cstr(why))
}

/// FunctionCall of function `oid` with one argument, in text format.
pub fn function_call(oid: u32, argument: &str) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend_from_slice(&count(0));
    body.extend_from_slice(&count(1));
    body.extend_from_slice(&length(argument.len()));
    body.extend_from_slice(argument.as_bytes());
    body.extend_from_slice(&count(0));
    message(b'F', &body)
}

/// PasswordMessage.
pub fn password(text: &str) -> Vec<u8> {
    message(b'p', &cstr(text))
}

/// SASLInitialResponse.
pub fn sasl_initial(mechanism: &str, data: &[u8]) -> Vec<u8> {
    let mut body = cstr(mechanism);
    body.extend_from_slice(&length(data.len()));
    body.extend_from_slice(data);
    message(b'p', &body)
}

/// A string with its NUL.
pub fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn strings_into(out: &mut Vec<u8>, strings: &[&str]) {
    for text in strings {
        out.extend_from_slice(&cstr(text));
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes)
        .expect("a message under 4 GB")
        .to_be_bytes()
}

fn count(items: usize) -> [u8; 2] {
    u16::try_from(items)
        .expect("at most 65535 items")
        .to_be_bytes()
}

//! The API's HTTP as far as clients can tell: what has a length is read, what is chunked is
//! refused, and ten connections are all that is taken.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};

const MAX_CONNECTIONS: usize = 10;
const MAX_BODY: usize = 51_200;
const MAX_HEAD: usize = 8192;
const METHODS: [&str; 4] = ["GET", "PUT", "PATCH", "DELETE"];

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// None is a request without one; an empty one is none.
    pub(crate) body: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Serves until the process ends. One thread a connection; the requests take turns elsewhere.
pub(crate) fn serve(listener: &UnixListener, answer: &(dyn Fn(&Request) -> Answer + Sync)) {
    let open = AtomicUsize::new(0);
    let open = &open;
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                open.fetch_sub(1, Ordering::SeqCst);
                let body = r#"{ "error": "Too many open connections" }"#.to_owned();
                drop(say(&mut stream, &Answer { status: 503, body }));
                continue;
            }
            scope.spawn(move || {
                converse(&mut stream, answer);
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
}

fn converse(stream: &mut UnixStream, answer: &dyn Fn(&Request) -> Answer) {
    let mut held = vec![];
    loop {
        let said = match next_request(stream, &mut held) {
            Ok(Some(request)) => say(stream, &answer(&request)),
            Ok(None) => return,
            Err(why) => {
                let body = format!(
                    "{{ \"error\": \"{why}\nAll previous unanswered requests will be dropped.\" }}"
                );
                drop(say(stream, &Answer { status: 400, body }));
                return;
            }
        };
        if said.is_err() {
            return;
        }
    }
}

/// `None` is the connection's end.
fn next_request(stream: &mut UnixStream, held: &mut Vec<u8>) -> Result<Option<Request>, String> {
    let invalid = || "Invalid request.".to_owned();
    let head = loop {
        if let Some(at) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..at + 4).collect();
            break String::from_utf8(head).map_err(|_| invalid())?;
        }
        if held.len() > MAX_HEAD {
            return Err(invalid());
        }
        if !more(stream, held) {
            return Ok(None);
        }
    };
    let mut lines = head.lines();
    let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, path, "HTTP/1.1" | "HTTP/1.0"] = words[..] else { return Err(invalid()) };
    if !METHODS.contains(&method) {
        return Err("Invalid HTTP Method: Unsupported HTTP method.".into());
    }
    let mut length = 0;
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(invalid)?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<usize>().map_err(|_| invalid())?,
            "transfer-encoding" => return Err(invalid()),
            _ => {}
        }
    }
    if length > MAX_BODY {
        return Err(format!(
            "Request payload with size {length} is larger than the limit of {MAX_BODY} allowed by \
             server."
        ));
    }
    while held.len() < length {
        if !more(stream, held) {
            return Ok(None);
        }
    }
    let body: Vec<u8> = held.drain(..length).collect();
    let body = (!body.is_empty()).then_some(body);
    Ok(Some(Request { method: method.to_owned(), path: path.to_owned(), body }))
}

fn more(stream: &mut UnixStream, held: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes) {
        Ok(length) if length > 0 => {
            held.extend_from_slice(&bytes[..length]);
            true
        }
        _ => false,
    }
}

fn say(stream: &mut UnixStream, answer: &Answer) -> std::io::Result<()> {
    let Answer { status, body } = answer;
    let head =
        format!("HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n");
    let rest = match body.as_str() {
        "" => "\r\n".to_owned(),
        body => format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    stream.write_all(format!("{head}{rest}").as_bytes())
}

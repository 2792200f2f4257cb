//! REST with hand-written HTTP/1.1: one connection per call in flight, one event loop per thread.

use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::Options;
use crate::tally::Tally;

/// Keeps `in_flight` calls in flight.
pub fn run(in_flight: usize, options: &Options) -> Tally {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("threads have event loops");
    let request: Rc<[u8]> = request(options).into();
    LocalSet::new().block_on(&runtime, async {
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| tokio::task::spawn_local(converse(request.clone(), options.clone())))
            .collect();
        let mut total = Tally::default();
        for task in tasks {
            total.add(task.await.expect("a connection failed; its panic says why"));
        }
        total
    })
}

fn request(options: &Options) -> Vec<u8> {
    let Options { address, path, body, .. } = options;
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    match options.rest {
        Some(length @ 1..) => {
            head += &format!(
                "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {length}\r\n\r\n"
            );
        }
        _ => head += "Content-Type: application/json\r\n\r\n",
    }
    [head.as_bytes(), body].concat()
}

/// Makes one call after another on a connection.
async fn converse(request: Rc<[u8]>, options: Options) -> Tally {
    let mut socket = TcpStream::connect(&options.address).await.expect("the server listens");
    socket.set_nodelay(true).expect("TCP has this option");
    let mut tally = Tally::default();
    let mut input = Vec::with_capacity(1 << 16);
    let begun = Instant::now();
    while begun.elapsed() < options.seconds {
        let asked = Instant::now();
        socket.write_all(&request).await.expect("the server reads");
        if answer(&mut socket, &mut input).await {
            tally.nanoseconds.push(asked.elapsed().as_nanos() as u64);
        } else {
            tally.failed += 1;
            sleep(options.backoff).await;
        }
    }
    tally.seconds = begun.elapsed().as_secs_f64();
    tally
}

/// Reads a whole response; returns whether its status is 200.
async fn answer(socket: &mut TcpStream, input: &mut Vec<u8>) -> bool {
    input.clear();
    let mut whole = None;
    while whole.is_none_or(|length| input.len() < length) {
        let read = socket.read_buf(input).await.expect("the server answers");
        assert!(read > 0, "the server closed the connection");
        if whole.is_none()
            && let Some(head) = input.windows(4).position(|four| four == b"\r\n\r\n")
        {
            whole = Some(head + 4 + content_length(&input[..head]));
        }
    }
    input.starts_with(b"HTTP/1.1 200")
}

fn content_length(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).expect("heads are text");
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    value.expect("the body has a length").trim().parse().expect("lengths are numbers")
}

//! A lightweight load generator: keeps a number of identical calls in flight and prints the results as a line of JSON.
//!
//! ```text
//! load ADDRESS PATH BODY_FILE --in-flight 64 --connections 4 --seconds 5 --backoff 0.1
//! load ADDRESS PATH BODY_FILE --rest JSON_LENGTH --in-flight 64 --connections 1 --seconds 5
//! ```
//!
//! By default it calls over gRPC. With `--rest` it posts over HTTP/1.1, with one connection per call in flight, and
//! `--connections` is the number of threads among which the connections are divided. JSON_LENGTH is the length of the
//! JSON in the body if binary tensors follow it; 0 if all of the body is JSON.

mod grpc;
mod rest;
mod tally;

use std::time::Duration;

use tally::Tally;

fn main() {
    let options = Options::parse();
    let run = if options.rest.is_some() { rest::run } else { grpc::run };
    let threads: Vec<_> = (0..options.connections)
        .map(|index| {
            let options = options.clone();
            // The remainder goes to the first connections.
            let spare = usize::from(index < options.in_flight % options.connections);
            let in_flight = options.in_flight / options.connections + spare;
            std::thread::spawn(move || run(in_flight, &options))
        })
        .collect();
    let mut total = Tally::default();
    for thread in threads {
        total.add(thread.join().expect("a connection failed; its panic says why"));
    }
    println!("{}", total.report());
}

#[derive(Clone)]
struct Options {
    address: String,
    path: String,
    body: Vec<u8>,
    in_flight: usize,
    connections: usize,
    seconds: Duration,
    /// The delay before a rejected call is retried.
    backoff: Duration,
    /// For HTTP/1.1, the length of the JSON in the body; 0 for all of it.
    rest: Option<usize>,
}

impl Options {
    fn parse() -> Options {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let given = |name: &str| -> Option<f64> {
            let position = arguments.iter().position(|argument| argument == name)?;
            Some(arguments[position + 1].parse().expect("flags have numbers"))
        };
        let flag = |name: &str, default: f64| given(name).unwrap_or(default);
        let [address, path, file, ..] = &arguments[..] else {
            panic!(
                "expected ADDRESS PATH BODY_FILE [--in-flight N] [--connections N] [--seconds N] [--backoff N] \
                 [--rest N]"
            )
        };
        Options {
            address: address.clone(),
            path: path.clone(),
            body: std::fs::read(file).expect("the body file is there"),
            in_flight: flag("--in-flight", 1.0) as usize,
            connections: flag("--connections", 1.0) as usize,
            seconds: Duration::from_secs_f64(flag("--seconds", 5.0)),
            backoff: Duration::from_secs_f64(flag("--backoff", 0.0)),
            rest: given("--rest").map(|length| length as usize),
        }
    }
}

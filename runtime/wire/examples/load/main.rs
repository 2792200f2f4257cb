//! A load generator that costs little: it keeps a number of identical calls in flight and prints what happened as one
//! line of JSON.
//!
//! ```text
//! load ADDRESS PATH BODY_FILE --in-flight 64 --connections 4 --seconds 5 --backoff 0.1
//! load ADDRESS PATH BODY_FILE --rest JSON_LENGTH --in-flight 64 --connections 1 --seconds 5
//! ```
//!
//! By default it calls over gRPC. With `--rest` it posts over HTTP/1.1, where each call in flight has a connection of its
//! own; `--connections` is then the threads that they are shared out among. JSON_LENGTH: how much of the body is JSON,
//! where binary tensors follow; 0: all of it.

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
    /// How long a client that was refused stays away.
    backoff: Duration,
    /// Over HTTP/1.1: how much of the body is JSON; 0 for all of it.
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

//! Routes requests for a model and version to a queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::grpc::status::{Code, Status};
use crate::queue::Queue;
use crate::signature::quote;

/// Triton's message, which clients match on.
const UNKNOWN: &str = "Request for unknown model";

/// The routes of one model.
#[derive(Default)]
pub struct Routes {
    /// Maps a version ("" for the default version) or a label to its queue.
    pub ready: HashMap<String, Arc<Queue>>,
    /// Maps versions and labels that are not ready to the reason.
    pub unready: HashMap<String, String>,
}

/// The routes of all models; read by each request without a lock, replaced as a whole.
#[derive(Default)]
pub struct Models {
    table: ArcSwap<HashMap<String, Arc<Routes>>>,
    draining: AtomicBool,
    /// Whether a queue whose requests are served in Python was ever published.
    hosted: AtomicBool,
}

impl Models {
    /// Publishes the routes of all versions of a model; without a ready version the model is known but not ready.
    pub fn publish(&self, name: &str, routes: Routes) {
        if routes.ready.values().any(|queue| queue.options.hosted) {
            self.hosted.store(true, Ordering::Relaxed);
        }
        let routes = Arc::new(routes);
        self.table.rcu(|table| {
            let mut table = HashMap::clone(table);
            table.insert(name.to_owned(), routes.clone());
            table
        });
    }

    /// Removes a model's routes.
    pub fn unpublish(&self, name: &str) {
        self.table.rcu(|table| {
            let mut table = HashMap::clone(table);
            table.remove(name);
            table
        });
    }

    /// Rejects all further requests, because the server is shutting down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether requests for this model are served by a servicer in Python.
    pub fn is_hosted(&self, name: &str, version: &str) -> bool {
        self.hosted.load(Ordering::Relaxed)
            && self.find(name, version).is_ok_and(|queue| queue.options.hosted)
    }

    /// Returns the queue of a model and version; NOT_FOUND if there is none, UNAVAILABLE if it is not ready.
    pub fn find(&self, name: &str, version: &str) -> Result<Arc<Queue>, Status> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Status::shutting_down());
        }
        let table = self.table.load();
        let Some(routes) = table.get(name) else {
            let mut ready: Vec<&str> = table
                .iter()
                .filter(|(_, routes)| !routes.ready.is_empty())
                .map(|(name, _)| &name[..])
                .collect();
            ready.sort_unstable();
            let available = if ready.is_empty() { "no model".to_owned() } else { ready.join(", ") };
            let message = format!("{UNKNOWN}: {} is not found; available: {available}", quote(name));
            return Err(Status::new(Code::NotFound, message));
        };
        if let Some(queue) = routes.ready.get(version) {
            return Ok(queue.clone());
        }
        if let Some(why) = routes.unready.get(version) {
            let message =
                format!("{UNKNOWN}: {} {} is not at ready state: {why}", quote(name), show_route(version));
            return Err(Status::new(Code::Unavailable, message));
        }
        if routes.ready.is_empty() {
            let message = format!(
                "{UNKNOWN}: {} has no available versions; it is loading, or failed to load (see the server's log)",
                quote(name)
            );
            return Err(Status::new(Code::Unavailable, message));
        }
        let mut available: Vec<&str> =
            routes.ready.keys().map(|route| &route[..]).filter(|route| !route.is_empty()).collect();
        // Versions by number, then labels by name.
        available.sort_unstable_by_key(|route| (route.parse::<u64>().unwrap_or(u64::MAX), *route));
        let message = format!(
            "{UNKNOWN}: {} {} is not found; available: {}",
            quote(name),
            show_route(version),
            available.join(", ")
        );
        Err(Status::new(Code::NotFound, message))
    }

    /// Returns all queues that requests are routed to, each once.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        let mut queues: Vec<Arc<Queue>> = Vec::new();
        for queue in self.table.load().values().flat_map(|routes| routes.ready.values()) {
            if !queues.iter().any(|known| Arc::ptr_eq(known, queue)) {
                queues.push(queue.clone());
            }
        }
        queues
    }
}

/// Formats a version number or a label for messages.
fn show_route(route: &str) -> String {
    let is_version = !route.is_empty() && route.bytes().all(|digit| digit.is_ascii_digit());
    if is_version { format!("version {route}") } else { format!("label {}", quote(route)) }
}

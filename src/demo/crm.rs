//! The toy CRM: customers, orders, and a ledger of every refund that it really made.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::http::{Asked, serve};

/// One refund that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refund {
    pub(super) order: String,
    pub(super) amount: i64,
}

/// The CRM's own books.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Vec<Refund>>>, Arc<Mutex<Vec<String>>>);

impl Ledger {
    pub(super) fn refunds(&self) -> Vec<Refund> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody at the company writes a note on an order.
    pub(super) fn note(&self, order: &str) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push(order.to_owned());
    }

    fn order(&self, id: &str) -> Value {
        let noted = self.1.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|o| *o == id).count();
        let refunded: i64 = self.refunds().iter().filter(|r| r.order == id).map(|r| r.amount).sum();
        json!({"id": id, "totalMinor": 88_000, "refundedMinor": refunded, "currency": "EUR", "notes": noted})
    }

    fn add(&self, refund: Refund) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(refund);
        all.len()
    }
}

/// Serves the CRM; only who knows its token may use it.
pub(super) fn start(listener: TcpListener, token: String) -> Ledger {
    let ledger = Ledger::default();
    let books = ledger.clone();
    serve(listener, move |asked| {
        let answer = answer(&books, &token, &asked);
        async move { answer }
    });
    ledger
}

fn answer(books: &Ledger, token: &str, asked: &Asked) -> (StatusCode, Value) {
    let given = asked.headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if given != format!("Bearer {token}") {
        return (StatusCode::UNAUTHORIZED, json!({"error": "only the proxy has the credential of this CRM"}));
    }
    let segments: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
    match (&asked.method, segments.as_slice()) {
        (&Method::GET, ["customers", id]) => (StatusCode::OK, customer(id)),
        (&Method::PATCH, ["customers", id]) => (StatusCode::OK, patched(id, &asked.json)),
        (&Method::GET, ["orders", id]) => (StatusCode::OK, books.order(id)),
        (&Method::POST, ["orders", id, "refunds"]) => refund(books, id, &asked.json),
        _ => (StatusCode::NOT_FOUND, json!({"error": "no such thing"})),
    }
}

fn customer(id: &str) -> Value {
    json!({"id": id, "name": "Grace Example", "email": "grace@example.com", "creditLimitMinor": 100_000})
}

fn patched(id: &str, patch: &Value) -> Value {
    let mut customer = customer(id);
    if let (Some(all), Some(patch)) = (customer.as_object_mut(), patch.as_object()) {
        all.extend(patch.clone());
    }
    customer
}

fn refund(books: &Ledger, order: &str, asked: &Value) -> (StatusCode, Value) {
    let amount = asked.get("amountMinor").and_then(Value::as_i64).unwrap_or(0);
    let number = books.add(Refund { order: order.to_owned(), amount });
    (StatusCode::CREATED, json!({"refund": format!("rf_{number}"), "order": order, "amountMinor": amount}))
}

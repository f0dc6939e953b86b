use super::problem::Problem;
use axum::response::{IntoResponse, Response};
pub(super) async fn inbox() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn style() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn sign_in_form() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn sign_in() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn sign_out() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn hold() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn approve() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn reject() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn calls() -> Response {
    Problem::not_found().into_response()
}
pub(super) async fn call() -> Response {
    Problem::not_found().into_response()
}

//! The function's own binary; packaging renames it to `bootstrap`.

#[tokio::main]
async fn main() -> Result<(), on_scan::Error> {
    on_scan::run().await
}

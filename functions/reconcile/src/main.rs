//! The function's own binary; packaging renames it to `bootstrap`.

#[tokio::main]
async fn main() -> Result<(), reconcile::Error> {
    reconcile::run().await
}

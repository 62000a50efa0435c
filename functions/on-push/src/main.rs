//! The function's own binary; packaging renames it to `bootstrap`.

#[tokio::main]
async fn main() -> Result<(), on_push::Error> {
    on_push::run().await
}

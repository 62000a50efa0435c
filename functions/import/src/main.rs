//! The function's own binary; packaging renames it to `bootstrap`.

#[tokio::main]
async fn main() -> Result<(), import::Error> {
    import::run().await
}

//! The function's own binary; packaging renames it to `bootstrap`.

use lambda_runtime::Error;

#[tokio::main]
async fn main() -> Result<(), Error> {
    import::run().await
}

//! `docs/events.schema.json`, compiled.

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

const TEXT: &str = include_str!("../../docs/events.schema.json");

/// The schema of our events.
pub(crate) struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    /// Reads it; it is held against the meta-schema on the way.
    pub(crate) fn read() -> Self {
        let text: Value = serde_json::from_str(TEXT).expect("the schema is JSON");
        let name = text["$id"].as_str().expect("the schema has a name").to_owned();
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource(&name, text).expect("the schema is a resource");
        let mut schemas = Schemas::new();
        let index = compiler.compile(&name, &mut schemas).expect("the schema is one");
        Self { schemas, index }
    }

    /// What is wrong with `event`, if anything is.
    pub(crate) fn refusal(&self, event: &Value) -> Option<String> {
        self.schemas.validate(event, self.index).err().map(|error| format!("{error:#}"))
    }
}

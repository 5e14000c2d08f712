//! The CRDs as they are installed. Pure.

use kube::CustomResourceExt as _;
use serde_json::Value;

use super::{NodeCapacity, StatefulMigration};

/// The CRDs without the integer formats that the API server does not know and warns about: their bounds instead, so that
/// little can be written that we could not read.
pub fn manifests() -> serde_json::Result<Vec<Value>> {
    [StatefulMigration::crd(), NodeCapacity::crd()]
        .iter()
        .map(|crd| {
            let mut crd = serde_json::to_value(crd)?;
            drop_unsigned_formats(&mut crd);
            Ok(crd)
        })
        .collect()
}

fn drop_unsigned_formats(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let format =
                fields.get("format").and_then(Value::as_str).filter(|format| format.starts_with("uint"));
            // The API server takes bounds as floating point numbers: those of 64 bits it refuses.
            let largest = match format {
                Some("uint8") => Some(u32::from(u8::MAX)),
                Some("uint16") => Some(u32::from(u16::MAX)),
                Some("uint32") => Some(u32::MAX),
                _ => None,
            };
            if format.is_some() {
                fields.remove("format");
            }
            if let Some(largest) = largest {
                fields.insert("maximum".to_owned(), largest.into());
            }
            fields.values_mut().for_each(drop_unsigned_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_unsigned_formats),
        _ => {}
    }
}

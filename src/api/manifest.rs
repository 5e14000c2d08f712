//! The CRD as it is installed. Pure.

use kube::CustomResourceExt as _;
use serde_json::Value;

use super::StatefulMigration;

/// The CRD without the integer formats that the API server does not know and warns about; `minimum: 0` stays.
pub fn manifest() -> serde_json::Result<Value> {
    let mut crd = serde_json::to_value(StatefulMigration::crd())?;
    drop_unsigned_formats(&mut crd);
    Ok(crd)
}

fn drop_unsigned_formats(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if matches!(fields.get("format"), Some(Value::String(format)) if format.starts_with("uint")) {
                fields.remove("format");
            }
            fields.values_mut().for_each(drop_unsigned_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_unsigned_formats),
        _ => {}
    }
}

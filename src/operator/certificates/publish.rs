//! Keeps the cluster's objects as the authority says: its Secret, the public ConfigMap, the webhook's Secret, the
//! caBundles. Each function is idempotent and writes only what differs. Calls the Kubernetes API.

use std::{collections::BTreeMap, fmt::Debug, time::SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::{ConfigMap, Secret},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Authority, CertificateError, WEBHOOK_LIFE, authority::SECRET};
use crate::{
    api::MANAGER,
    kit::{KitError, tls::Lifetime},
};

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// ConfigMap with key `ca.crt`: whom to trust.
const BUNDLE: &str = "shadow-ca";
const BUNDLE_KEY: &str = "ca.crt";
/// Of the webhook and of the extender.
pub(super) const WEBHOOK: Serving = Serving { secret: "shadow-webhook-tls", service: "shadow-webhook" };
pub(super) const EXTENDER: Serving = Serving { secret: "shadow-extender-tls", service: "shadow-extender" };
/// Name of both webhook configurations.
const WEBHOOKS: &str = "shadow";

/// The authority of the Secret. Where there is none: `known`, or a new one; whoever creates the Secret first has
/// made it, for all.
pub(super) async fn authority(
    client: &Client,
    namespace: &str,
    known: Option<&Authority>,
) -> Result<Authority, CertificateError> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    if let Some(secret) = secrets.get_opt(SECRET).await.map_err(secret_error(SECRET))? {
        return Authority::from_data(&secret.data.unwrap_or_default());
    }
    let authority = known.map_or_else(|| Authority::found(SystemTime::now()), |known| Ok(known.clone()))?;
    let secret = tls_secret(namespace, SECRET, authority.to_data());
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => {
            tracing::info!("certificate authority made");
            Ok(authority)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let secret = secrets.get(SECRET).await.map_err(secret_error(SECRET))?;
            Authority::from_data(&secret.data.unwrap_or_default())
        }
        Err(error) => Err(secret_error(SECRET)(error).into()),
    }
}

/// Stores the authority's next stage and gives what is then in force. An authority that a user brought along (the
/// Secret is not managed by us) is renewed by the user.
pub(super) async fn replace_authority(
    client: &Client,
    namespace: &str,
    present: Authority,
    advanced: Authority,
) -> Result<Authority, CertificateError> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let mut secret = secrets.get(SECRET).await.map_err(secret_error(SECRET))?;
    let managed = secret.metadata.labels.iter().flatten().any(|(key, by)| key == MANAGED_BY && by == MANAGER);
    if !managed {
        tracing::warn!("the authority in Secret {SECRET} was brought along and is due for renewal");
        return Ok(present);
    }
    secret.data = Some(advanced.to_data());
    secrets.replace(SECRET, &PostParams::default(), &secret).await.map_err(secret_error(SECRET))?;
    tracing::info!("certificate authority advanced");
    Ok(advanced)
}

/// ConfigMap `shadow-ca`.
pub(super) async fn bundle(
    client: &Client,
    namespace: &str,
    authority: &Authority,
) -> Result<(), CertificateError> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let failed = || KitError::kube(format!("ConfigMap {BUNDLE}"));
    let data = BTreeMap::from([(BUNDLE_KEY.to_owned(), authority.bundle())]);
    match maps.get_opt(BUNDLE).await.map_err(failed())? {
        Some(map) if map.data.as_ref() == Some(&data) => {}
        Some(mut map) => {
            map.data = Some(data);
            maps.replace(BUNDLE, &PostParams::default(), &map).await.map_err(failed())?;
        }
        None => {
            let metadata = metadata(namespace, BUNDLE);
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            maps.create(&PostParams::default(), &map).await.map_err(failed())?;
        }
    }
    Ok(())
}

/// The caBundle of every webhook of both configurations named `shadow`; one that is not installed is skipped.
pub(super) async fn ca_bundles(client: &Client, authority: &Authority) -> Result<(), CertificateError> {
    let bundle = authority.bundle();
    patch_bundle(&Api::<MutatingWebhookConfiguration>::all(client.clone()), &bundle).await?;
    patch_bundle(&Api::<ValidatingWebhookConfiguration>::all(client.clone()), &bundle).await
}

async fn patch_bundle<K>(configurations: &Api<K>, bundle: &str) -> Result<(), CertificateError>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let failed = || KitError::kube(format!("{} {WEBHOOKS}", K::kind(&())));
    let Some(configuration) = configurations.get_opt(WEBHOOKS).await.map_err(failed())? else {
        return Ok(());
    };
    let Some(patch) = ca_bundle_patch(&serde_json::to_value(&configuration).unwrap_or_default(), bundle)
    else {
        return Ok(());
    };
    let patch = kube::api::Patch::Json::<()>(patch);
    configurations.patch(WEBHOOKS, &PatchParams::default(), &patch).await.map_err(failed())?;
    tracing::info!(kind = %K::kind(&()), "caBundle published");
    Ok(())
}

/// What makes `bundle` the caBundle of every webhook in `configuration`; `None` if it is already.
fn ca_bundle_patch(configuration: &Value, bundle: &str) -> Option<Patch> {
    let bundle = Value::String(BASE64_STANDARD.encode(bundle));
    let webhooks = configuration["webhooks"].as_array()?;
    let changes = webhooks.iter().enumerate().filter(|(_, hook)| hook["clientConfig"]["caBundle"] != bundle);
    let mut operations: Vec<_> = changes
        .map(|(index, _)| {
            let path = PointerBuf::from_tokens(["webhooks", &index.to_string(), "clientConfig", "caBundle"]);
            PatchOperation::Add(AddOperation { path, value: bundle.clone() })
        })
        .collect();
    if operations.is_empty() {
        return None;
    }
    // The indices are right only for the version that was read.
    let path = PointerBuf::from_tokens(["metadata", "resourceVersion"]);
    let value = configuration["metadata"]["resourceVersion"].clone();
    operations.insert(0, PatchOperation::Test(TestOperation { path, value }));
    Some(Patch(operations))
}

/// A part that others connect to, and the Secret with its certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Serving {
    secret: &'static str,
    service: &'static str,
}

/// A part's Secret: renewed when due, when another authority signs now, when it is unusable.
pub(super) async fn serving_secret(
    client: &Client,
    namespace: &str,
    authority: &Authority,
    serving: Serving,
) -> Result<(), CertificateError> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let failed = || secret_error(serving.secret);
    let present = secrets.get_opt(serving.secret).await.map_err(failed())?;
    let data = present.as_ref().and_then(|secret| secret.data.as_ref());
    if data.is_some_and(|data| still_good(data, authority, SystemTime::now())) {
        return Ok(());
    }
    let service = format!("{}.{namespace}.svc", serving.service);
    let names = [service.clone(), format!("{service}.cluster.local"), "localhost".to_owned()];
    let issued = authority.issue(&names, WEBHOOK_LIFE, SystemTime::now())?;
    let data = BTreeMap::from([
        ("tls.crt".to_owned(), ByteString(issued.certificate.into_bytes())),
        ("tls.key".to_owned(), ByteString(issued.key.into_bytes())),
        (BUNDLE_KEY.to_owned(), ByteString(authority.active().into())),
    ]);
    if let Some(mut secret) = present {
        secret.data = Some(data);
        secrets.replace(serving.secret, &PostParams::default(), &secret).await.map_err(failed())?;
    } else {
        let secret = tls_secret(namespace, serving.secret, data);
        secrets.create(&PostParams::default(), &secret).await.map_err(failed())?;
    }
    tracing::info!(secret = serving.secret, "certificate issued");
    Ok(())
}

fn still_good(data: &BTreeMap<String, ByteString>, authority: &Authority, now: SystemTime) -> bool {
    let signer = data.get(BUNDLE_KEY).map(|pem| pem.0.as_slice());
    let lifetime = data.get("tls.crt").and_then(|pem| Lifetime::of_pem(&pem.0).ok());
    data.contains_key("tls.key")
        && signer == Some(authority.active().as_bytes())
        && lifetime.is_some_and(|lifetime| !lifetime.renewal_due(now))
}

fn tls_secret(namespace: &str, name: &str, data: BTreeMap<String, ByteString>) -> Secret {
    let type_ = Some("kubernetes.io/tls".to_owned());
    Secret { metadata: metadata(namespace, name), data: Some(data), type_, ..Secret::default() }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn secret_error(name: &'static str) -> impl FnOnce(kube::Error) -> KitError {
    KitError::kube(format!("Secret {name}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_webhooks_without_the_bundle_are_patched_and_only_the_version_that_was_read() {
        let present = BASE64_STANDARD.encode("new");
        let configuration = json!({"metadata": {"resourceVersion": "7"}, "webhooks": [
            {"name": "a", "clientConfig": {}},
            {"name": "b", "clientConfig": {"caBundle": present}},
            {"name": "c", "clientConfig": {"caBundle": "b2xk"}},
        ]});
        let patch = serde_json::to_value(ca_bundle_patch(&configuration, "new").unwrap()).unwrap();
        assert_eq!(
            patch,
            json!([
                {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": present},
                {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": present},
            ])
        );
        let mut done = configuration;
        for index in [0, 2] {
            done["webhooks"][index]["clientConfig"]["caBundle"] = json!(present);
        }
        assert!(ca_bundle_patch(&done, "new").is_none());
    }

    #[test]
    fn the_webhooks_certificate_is_replaced_when_due_and_when_another_authority_signs() {
        let now = SystemTime::now();
        let authority = Authority::found(now).unwrap();
        let issued = authority.issue(&["w".to_owned()], WEBHOOK_LIFE, now).unwrap();
        let data = BTreeMap::from([
            ("tls.crt".to_owned(), ByteString(issued.certificate.into())),
            ("tls.key".to_owned(), ByteString(issued.key.into())),
            (BUNDLE_KEY.to_owned(), ByteString(authority.active().into())),
        ]);
        assert!(still_good(&data, &authority, now));
        assert!(still_good(&data, &authority, now + WEBHOOK_LIFE / 2));
        assert!(!still_good(&data, &authority, now + WEBHOOK_LIFE * 3 / 4));
        assert!(!still_good(&data, &Authority::found(now).unwrap(), now));
    }
}

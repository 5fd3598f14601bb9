fn main() {
    let _ = serde_json::to_string(&sidekey::base::secret::Secret::new("token"));
}

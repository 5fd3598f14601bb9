fn main() {
    let token = sidekey::base::secret::Secret::new("token");
    assert!(token == sidekey::base::secret::Secret::new("token"));
}

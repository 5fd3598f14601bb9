fn main() {
    println!("{}", sidekey::base::secret::Secret::new("token"));
}

fn main() {
    println!("{}", sidekey::base::secret::SecretKey::new([1; 32]));
}

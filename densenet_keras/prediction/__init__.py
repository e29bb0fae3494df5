"""What a trained network says of pictures: finding them, classifying them, writing the answers down."""

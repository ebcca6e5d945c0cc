
}root.layer-0"_tf_keras_layer*V{"name": "dense", "class_name": "Dense", "config": {"units": 2, "activation": "relu"}}2
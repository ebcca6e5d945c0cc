
}root.layer-0"_tf_keras_layer*V{"name": "dense", "class_name": "Dense", "config": {"units": 2, "activation": "relu"}}2
Žroot.layer-1"_tf_keras_layer*e{"class_name": "Lambda", "config": {"function": ["4wEAAAA=", null, null], "function_type": "lambda"}}2
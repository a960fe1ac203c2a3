import numpy as np
import tensorflow as tf

ROUNDS = 100


def test_a_sum_of_three_gradients_has_one_order() -> None:
    """TensorFlow begins such a sum with the first term whose memory nothing else uses any more.

    With two operations at a time, that changes from run to run if another operation reads a term, as here
    each of the products does, and takes about as long as the sum has to wait.
    """
    rng = np.random.default_rng(0)
    one, two, three = (tf.constant(rng.standard_normal((256, 256)).astype(np.float32)) for _ in range(3))

    @tf.function
    def add() -> tuple[tf.Tensor, tf.Tensor]:
        first, second, third = 1.1 * one, 1.1 * two, 1.1 * three
        products = [tf.matmul(first, one), tf.matmul(second, two)]
        return tf.add_n([first, second, third]), tf.add_n(products)

    expected = add()[0].numpy()
    assert all(np.array_equal(add()[0].numpy(), expected) for _ in range(ROUNDS))

# The training tool reads every kind of data set, made here of the fuzz targets' seeds, and refuses what does not fit.
function(copy source destination)
  configure_file(${SEEDS}/${source} ${DIRECTORY}/${destination} COPYONLY)
endfunction()

# `train` on the data set of this kind in the folder of that name ends with `status` and says `expected`.
function(expect kind folder status expected)
  execute_process(
    COMMAND ${PROGRAM} --data ${kind}:${DIRECTORY}/${folder} --duration 1ep --batch-size 2 --image-size 16
            --model cifar_resnet20 --learning-rate 0.001
    RESULT_VARIABLE got OUTPUT_VARIABLE output ERROR_VARIABLE error)
  if(NOT got EQUAL status OR NOT "${output}${error}" MATCHES "${expected}")
    message(SEND_ERROR "${kind}:${folder}: status ${got}, expected ${status}; "
                       "'${output}${error}', expected ${expected}")
  endif()
endfunction()

file(REMOVE_RECURSE ${DIRECTORY})
foreach(batch data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch)
  copy(cifar/cifar10.bin cifar10/${batch}.bin)
endforeach()
foreach(split train test)
  copy(cifar/cifar100.bin cifar100/${split}.bin)
endforeach()
foreach(split train t10k)
  copy(idx/images plain/${split}-images-idx3-ubyte)
  copy(idx/labels plain/${split}-labels-idx1-ubyte)
  copy(idx_gzip/images_level_9.gz gzip/${split}-images-idx3-ubyte.gz)
  copy(idx_gzip/labels_level_9.gz gzip/${split}-labels-idx1-ubyte.gz)
endforeach()
foreach(split train val)
  copy(png/rgb.png folder/${split}/a/1.png)
  copy(jpeg/colour.jpg folder/${split}/b/1.jpg)
  copy(jpeg/grey.jpg folder/${split}/b/2.jpg)
endforeach()
expect(cifar10 cifar10 0 ", 5 training images.*epoch 1/1 ")
expect(cifar100 cifar100 0 ", 1 training images.*epoch 1/1 ")
expect(mnist plain 0 ", 2 training images.*epoch 1/1 ")
expect(mnist gzip 0 ", 2 training images.*epoch 1/1 ")
expect(fashion_mnist gzip 0 ", 2 training images.*epoch 1/1 ")
expect(folder folder 0 ", 3 training images.*epoch 1/1 ")

# Every option of training at once.
execute_process(
  COMMAND ${PROGRAM} --data cifar10:${DIRECTORY}/cifar10 --model cifar_resnet20 --duration 4ba --batch-size 2
          --grad-accum 2 --learning-rate 0.001 --lr-schedule warmup:2ba,cosine --stochastic-method sample
          --compute survivors --drop-rate 0.5 --drop-warmup 0.5dur --label-smoothing 0.1 --mixup 0.2
          --eval-interval 2ba --log console,csv:${DIRECTORY}/metrics.csv --save ${DIRECTORY}/weights.safetensors
  RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE error)
file(STRINGS ${DIRECTORY}/metrics.csv metrics)
list(FILTER metrics INCLUDE REGEX "^batch,")
list(LENGTH metrics batches)
if(NOT status EQUAL 0 OR NOT batches EQUAL 4 OR NOT EXISTS ${DIRECTORY}/weights.safetensors
   OR NOT output MATCHES "expected depth 6.750 of 9 .*trains 2 epochs of 3 batches, 4 in all.*eval:  loss [0-9.]+ ")
  message(SEND_ERROR "every option: status ${status}, ${batches} batches; '${output}${error}'")
endif()

expect(cifar10 none 1 "none/data_batch_1.bin: opening")
expect(cifar100 none 1 "none/train.bin: opening")
expect(mnist none 1 "none/train-labels-idx1-ubyte.gz: opening")
expect(folder none 1 "none/train: listing")
copy(jpeg/grey.jpg folder/val/c/1.jpg)
expect(folder folder 1 "val: classes: got 3 folders, expected the 2 of ")
copy(idx/images folder/train/a/0.png)
file(REMOVE_RECURSE ${DIRECTORY}/folder/val/c)
expect(folder folder 1 "0.png: first bytes")

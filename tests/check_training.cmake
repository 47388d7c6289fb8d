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
copy(idx/images mixed/train-images.idx3-ubyte)
copy(idx_gzip/labels_level_9.gz mixed/train-labels-idx1-ubyte.gz)
copy(idx_gzip/images_level_9.gz mixed/t10k-images.idx3-ubyte.gz)
copy(idx/labels mixed/t10k-labels-idx1-ubyte)
file(COPY ${DIRECTORY}/cifar10/ DESTINATION ${DIRECTORY}/parent/cifar-10-batches-bin)
file(COPY ${DIRECTORY}/cifar100/ DESTINATION ${DIRECTORY}/parent/cifar-100-binary)
foreach(split train val)
  copy(png/rgb.png folder/${split}/a/1.png)
  copy(jpeg/colour.jpg folder/${split}/b/1.jpg)
  copy(jpeg/grey.jpg folder/${split}/b/2.jpg)
  copy(jpeg/cmyk.jpg folder/${split}/b/more/3.jpg)
  copy(idx/labels folder/${split}/a/Thumbs.db)
endforeach()
expect(cifar10 cifar10 0 ", 5 training images.*epoch 1/1 ")
expect(cifar10 cifar10 0 "warning: train: --image-size: got 16, without effect; expected --data folder:DIR")
expect(cifar100 cifar100 0 ", 1 training images.*epoch 1/1 ")
expect(mnist plain 0 ", 2 training images.*epoch 1/1 ")
expect(mnist gzip 0 ", 2 training images.*epoch 1/1 ")
expect(fashion_mnist gzip 0 ", 2 training images.*epoch 1/1 ")
expect(mnist mixed 0 ", 2 training images.*epoch 1/1 ")
expect(fashion_mnist mixed 0 ", 2 training images.*epoch 1/1 ")
expect(cifar10 parent 0 ", 5 training images.*epoch 1/1 ")
expect(cifar100 parent 0 ", 1 training images.*epoch 1/1 ")
expect(folder folder 0 ", 4 training images.*epoch 1/1 .*train: 1 file left out, not PNG or JPEG files: 1 .db .a/Thumbs.db.")

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

# In 16 bits, on a named kind of machine; a run that goes on in float says so.
function(expect_precision precision expected)
  execute_process(
    COMMAND ${PROGRAM} --data cifar10:${DIRECTORY}/cifar10 --model cifar_resnet20 --batch-size 2 --learning-rate 0.001
            --checkpoint-dir ${DIRECTORY}/half --checkpoint-interval 1ba --precision ${precision} ${ARGN}
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE error)
  if(NOT status EQUAL 0 OR NOT "${output}${error}" MATCHES "${expected}")
    message(SEND_ERROR "${precision}: status ${status}; '${output}${error}', expected ${expected}")
  endif()
endfunction()
expect_precision(bf16 "2 in all  machine [a-z0-9_]+\n.*batch 2/2 .*loss [0-9.]+ " --duration 2ba)
expect_precision(bf16 "resumed from .*2 batches done" --duration 3ba --resume)
expect_precision(float "goes on with other settings: .*precision: float instead of bf16" --duration 4ba --resume)

# From the home folder.
set(home "$ENV{HOME}")
set(directory ${DIRECTORY})
set(ENV{HOME} ${DIRECTORY})
set(DIRECTORY "~")
expect(cifar10 cifar10 0 ", 5 training images.*epoch 1/1 ")
expect(folder folder 0 ", 4 training images.*epoch 1/1 ")
expect(mnist none 1 "${directory}/none: listing")
set(ENV{HOME} "")
expect(mnist plain 2 "~/plain: HOME: got nothing")
set(DIRECTORY ${directory})
set(ENV{HOME} "${home}")

expect(cifar10 none 1 "none: listing: got No such file")
expect(cifar100 none 1 "none: listing: got No such file")
expect(mnist none 1 "none: listing: got No such file")
expect(mnist cifar100 1 "cifar100: images: got test.bin, train.bin, expected train-images-idx3-ubyte")
expect(folder none 1 "none: listing: got No such file")
expect(folder cifar100 1 "cifar100: folders: got test.bin, train.bin, expected train and val")

# Ten classes' weights start a run with two if the classifier is new. ARGN: further arguments.
function(expect_fine_tuning status expected)
  execute_process(
    COMMAND ${PROGRAM} --data folder:${DIRECTORY}/folder --duration 2ba --batch-size 2 --image-size 16
            --learning-rate 0.001 --weights ${DIRECTORY}/weights.safetensors ${ARGN}
    RESULT_VARIABLE got OUTPUT_VARIABLE output ERROR_VARIABLE error)
  if(NOT got EQUAL status OR NOT "${output}${error}" MATCHES "${expected}")
    message(SEND_ERROR "${ARGN}: status ${got}, expected ${status}; '${output}${error}', expected ${expected}")
  endif()
endfunction()
expect_fine_tuning(1 "\"fc.bias\": shape: got .10., expected .2..*--reset-classifier starts the last layer anew")
set(tuning --reset-classifier --freeze conv1,bn1,layer1. --save ${DIRECTORY}/two.safetensors
           --checkpoint-dir ${DIRECTORY}/two --checkpoint-interval 1ba)
expect_fine_tuning(0 "tensors loaded.*2 tensors skipped.*epoch 1/1 .*" ${tuning})
expect_fine_tuning(0 "goes on with other settings: frozen: none instead of conv1.weight to layer1.2.bn2.bias"
                   --reset-classifier --resume --checkpoint-dir ${DIRECTORY}/two)

copy(jpeg/grey.jpg folder/val/c/1.jpg)
expect(folder folder 1 "val: classes: got also c, expected the 2 of ")
copy(jpeg/grey.jpg folder/train/b/1.webp)
expect(folder folder 1 "train: kinds of images: got 1 .webp .b/1.webp., expected PNG and JPEG alone")
file(REMOVE ${DIRECTORY}/folder/train/b/1.webp)
copy(idx/images folder/train/a/0.png)
file(REMOVE_RECURSE ${DIRECTORY}/folder/val/c)
expect(folder folder 1 "0.png: first bytes")
